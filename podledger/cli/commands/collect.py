"""`collect`: copy the ledgers of several databases into one."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace

from podledger.archive.collect import collect
from podledger.cli.output import print_json, print_table
from podledger.cli.parser import Parser
from podledger.cli.terminal import progress
from podledger.core.text import escape


def add_arguments(parser: Parser) -> None:
    """Add the sources and the target."""
    parser.add_argument("sources", metavar="DB", nargs="+", help="database to copy from")
    parser.add_argument("--into", metavar="DB", required=True, help="database to copy into; created if missing")


def run(args: Namespace) -> int:
    """Collect the ledgers and print how much was new in each; return 1 if one was refused or is shorter."""
    with progress("collect") as update:
        collected = asyncio.run(collect(args.sources, args.into, update))
    if args.json:
        print_json([one.as_json() for one in collected])
    else:
        header = ("ledger", "from", "new events", "new rejected lines", "events now")
        print_table(header, [one[:5] for one in collected], empty="no ledgers")
    problems = [one for one in collected if one.problem]
    for one in problems:
        print(f"podledger: {escape(one.ledger)} of {escape(one.source)}: {escape(one.problem)}", file=sys.stderr)
    return 1 if problems else 0
