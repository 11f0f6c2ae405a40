"""`rejected`: list received lines that are not valid reports."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator

from podledger.cli.output import clock, print_json_items, print_table_pages
from podledger.cli.parser import Parser
from podledger.cli.session import with_ledger
from podledger.ledger import Ledger
from podledger.store.log import Rejected


def add_arguments(_: Parser) -> None:
    """Add nothing: the command has no arguments of its own."""


def run(args: Namespace) -> None:
    """Print the rejected lines, each with the reason and the sender."""
    with_ledger(args, lambda ledger: _print(ledger, in_json=args.json))


async def _print(ledger: Ledger, *, in_json: bool) -> None:
    if in_json:
        await print_json_items([line.as_json() for line in page] async for page in _pages(ledger))
        return
    header = ("number", "recorded at (UTC)", "pid", "uid", "reason", "line")
    await print_table_pages(header, (map(_row, page) async for page in _pages(ledger)), empty="no rejected lines")


async def _pages(ledger: Ledger) -> AsyncIterator[list[Rejected]]:
    last = 0
    while page := await ledger.rejected(after=last):
        yield page
        last = page[-1].number


def _row(one: Rejected) -> tuple[object, ...]:
    line = one.raw[:200].decode(errors="replace")
    return (one.number, clock(one.recorded_us), one.pid, one.uid, one.reason, line)
