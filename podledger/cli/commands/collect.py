"""`collect`: copy the ledgers of several databases into one."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from podledger.archive.collect import collect
from podledger.cli.output import print_json, print_table
from podledger.cli.parser import Parser
from podledger.cli.terminal import progress


def add_arguments(parser: Parser) -> None:
    """Add the sources and the target."""
    parser.add_argument("sources", metavar="DB", nargs="+", help="database to copy from")
    parser.add_argument("--into", metavar="DB", required=True, help="database to copy into; created if missing")


def run(args: Namespace) -> None:
    """Collect the ledgers and print how much was new in each."""
    with progress("collect") as update:
        collected = asyncio.run(collect(args.sources, args.into, update))
    if args.json:
        print_json([one.as_json() for one in collected])
    else:
        header = ("ledger", "from", "new events", "new rejected lines", "events now")
        print_table(header, collected, empty="no ledgers")
