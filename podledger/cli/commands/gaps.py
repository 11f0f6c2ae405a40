"""`gaps`: list reports that were sent but never arrived."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podledger.cli.output import print_json, print_table
from podledger.cli.parser import Parser
from podledger.cli.session import add_at, moment_of, with_ledger
from podledger.queries.gaps import Gap

HEADER = ("sender", "stream", "missing", "after seq", "before seq")


def add_arguments(parser: Parser) -> None:
    """Add the moment."""
    add_at(parser)


def run(args: Namespace) -> None:
    """Print each run of missing reports."""
    gaps = with_ledger(args, lambda ledger: ledger.gaps(moment_of(args.at)))
    if args.json:
        print_json([gap.as_json() for gap in gaps])
    else:
        print_table(HEADER, map(gap_row, gaps), empty="nothing is missing")


def gap_row(gap: Gap) -> tuple[Any, ...]:
    """Return a gap as a row of the table."""
    missing = str(gap.first) if gap.first == gap.last else f"{gap.first} to {gap.last}"
    return (gap.pod_name, gap.source, missing, gap.after_seq or "its first", gap.before_seq)
