"""`rebuild`: repair the projections from the log."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.output import print_json
from podledger.cli.parser import Parser
from podledger.cli.session import with_ledger
from podledger.cli.terminal import progress
from podledger.core.text import pluralize
from podledger.ledger import Ledger
from podledger.store.log import Head


def add_arguments(_: Parser) -> None:
    """Add nothing: the command has no arguments of its own."""


def run(args: Namespace) -> None:
    """Rebuild the projections and print how many rows changed."""
    changed, head = with_ledger(args, _rebuild)
    if args.json:
        print_json({"ledger": head.name, "events": head.head_seq, "rows_changed": changed})
    else:
        print(f"rebuilt from {pluralize(head.head_seq, 'event')}: {pluralize(changed, 'row')} changed")


async def _rebuild(ledger: Ledger) -> tuple[int, Head]:
    with progress("rebuild") as update:
        return await ledger.rebuild(update), await ledger.head()
