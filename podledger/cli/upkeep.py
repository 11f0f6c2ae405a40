"""Looking after a ledger: the rebuild and the demonstration."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands
from podledger.core.text import pluralize

if TYPE_CHECKING:
    from podledger.ledger import Ledger


def add_commands(commands: Commands) -> None:
    """rebuild, doctor, recover, demo."""
    commands.add("rebuild", run_rebuild, "fold the log anew, aside, and put the projections right")
    doctor = commands.add("doctor", run_doctor, "what endangers the database, or has harmed it, each with the mend")
    doctor.add_argument("--socket", metavar="PATH", action="append", default=[], help="also look at this socket's file")
    recover = commands.add("recover", run_salvage, "write what still holds of a damaged database into a new one")
    recover.add_argument("source", metavar="SRC", help="the damaged database")
    recover.add_argument("target", metavar="DB", help="the new one, where there is no file yet")
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
        print(
            f"{pluralize(head.head_seq, 'event')} folded anew, {pluralize(changed, 'row')} of the projections put right"
        )


def run_doctor(args: Namespace) -> int:
    """Print what the doctor finds; 1 where something is wrong."""
    from pathlib import Path

    from podledger.cli.output import print_json, print_table
    from podledger.cli.session import database_path, settings
    from podledger.doctor.examine import examine
    from podledger.doctor.finding import all_ok

    ledger = args.ledger or settings().ledger
    findings = examine(database_path(args), ledger, sockets=[Path(socket) for socket in args.socket])
    if args.json:
        print_json({"ok": all_ok(findings), "findings": [finding._asdict() for finding in findings]})
    else:
        print_table(("level", "check", "found", "mend"), ((f.level, f.check, f.detail, f.fix) for f in findings))
    return 0 if all_ok(findings) else 1


def run_salvage(args: Namespace) -> int:
    """Salvage a database; 1 where something is lost."""
    import asyncio

    from podledger.cli.output import print_json, print_line, print_table
    from podledger.doctor.recover import recover
    from podledger.store.database import locate

    recovered = asyncio.run(recover(locate(args.source), locate(args.target), args.ledger))
    if args.json:
        print_json([one.as_json() for one in recovered])
    else:
        for one in recovered:
            print_line(f"{one.ledger}: {one.kept} entries kept as they were, {one.recorded_anew} recorded anew")
            moved = ((f"{first} to {last}", f"{now} to {now + last - first}") for first, last, now in one.moved)
            print_table(("seq before", "seq now"), moved, empty="no entry has another seq now")
            print_table(("lost from", "to", "why"), one.lost, empty="nothing is lost")
    return 1 if any(one.lost for one in recovered) else 0


def run_demo(args: Namespace) -> None:
    """Run the demonstration."""
    from functools import partial

    from podledger.cli.demo_report import show
    from podledger.demo import story

    story.run(partial(show, as_json=args.json))
