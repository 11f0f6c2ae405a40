"""Looking after a ledger: the rebuild and the demonstration."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands

if TYPE_CHECKING:
    from podledger.ledger import Ledger


def add_commands(commands: Commands) -> None:
    """rebuild, demo."""
    commands.add("rebuild", run_rebuild, "fold the log anew, aside, and put the projections right")
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


def run_demo(args: Namespace) -> None:
    """Run the demonstration."""
    from podledger import demo

    demo.run(as_json=args.json)
