"""`rejected`: list received lines that are not valid reports."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.output import clock, print_json, print_table
from podledger.cli.parser import Parser
from podledger.cli.session import with_ledger
from podledger.ledger import Ledger
from podledger.store.log import Rejected


def add_arguments(_: Parser) -> None:
    """Add nothing: the command has no arguments of its own."""


def run(args: Namespace) -> None:
    """Print the rejected lines, each with the reason and the sender."""
    lines = with_ledger(args, _read_all)
    if args.json:
        print_json([line.as_json() for line in lines])
        return
    header = ("number", "recorded at (UTC)", "pid", "uid", "reason", "line")
    rows = (
        (one.number, clock(one.recorded_us), one.pid, one.uid, one.reason, one.raw[:200].decode(errors="replace"))
        for one in lines
    )
    print_table(header, rows, empty="no rejected lines")


async def _read_all(ledger: Ledger) -> list[Rejected]:
    found: list[Rejected] = []
    while page := await ledger.rejected(after=found[-1].number if found else 0):
        found += page
    return found
