"""Looking after a ledger: the certificate, the rebuild, the doctor, and the demonstration."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands

if TYPE_CHECKING:
    from podledger.ledger import Ledger


def add_commands(commands: Commands) -> None:
    """rebuild, verify, demo."""
    commands.add("rebuild", run_rebuild, "fold the log anew, aside, and put the projections right")
    commands.add("verify", run_verify, "the certificate: is everything as it was written?")
    commands.add("demo", run_demo, "a small tree of real processes, and what the ledger makes of it")


def run_rebuild(args: Namespace) -> None:
    """Rebuild the projections."""
    from podledger.cli.output import print_json, progress
    from podledger.cli.session import with_ledger

    async def work(ledger: Ledger) -> Any:
        with progress("rebuild") as told:
            return await ledger.rebuild(told), await ledger.head()

    changed, head = with_ledger(args, work)
    if args.json:
        print_json({"ledger": head.name, "events": head.head_seq, "rows_changed": changed})
    else:
        print(f"{head.head_seq} events folded anew; {changed} rows of the projections were put right")


def run_verify(args: Namespace) -> int:
    """Print the certificate; 1 where it names a problem."""
    from podledger.cli.output import print_json, print_line, print_table, progress
    from podledger.cli.session import with_ledger
    from podledger.errors import LedgerNotFoundError, SchemaError, StorageError
    from podledger.refold import Problem
    from podledger.verify import Certificate

    async def work(ledger: Ledger) -> Certificate:
        with progress("verify") as told:
            return await ledger.verify(told)

    try:
        certificate = with_ledger(args, work)
    except (StorageError, SchemaError) as error:
        certificate = Certificate(args.ledger or "", 0, "", (Problem("file", None, error.message),))
    except LedgerNotFoundError as error:
        if error.__cause__ is None and not _exists(args):
            raise
        certificate = Certificate(args.ledger or "", 0, "", (Problem("ledger", None, error.message),))
    if args.json:
        print_json(certificate.as_json())
    elif certificate.ok:
        print_line(f"whole: {certificate.events} events, head digest {certificate.head_digest}", "green")
    else:
        print_table(("check", "seq", "problem"), certificate.problems)
    return 0 if certificate.ok else 1


def _exists(args: Namespace) -> bool:
    from podledger.cli.session import settings
    from podledger.database import locate

    return locate(args.db or settings().db).is_file()


def run_demo(args: Namespace) -> None:
    """Run the demonstration."""
    from podledger import demo

    demo.run(as_json=args.json)
