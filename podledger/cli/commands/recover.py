"""`recover`: copy the readable part of a damaged database into a new one."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from podledger.cli.output import print_json, print_line, print_table
from podledger.cli.parser import Parser
from podledger.core.text import escape
from podledger.doctor.recover import recover
from podledger.store.database import locate


def add_arguments(parser: Parser) -> None:
    """Add the two databases."""
    parser.add_argument("source", metavar="SRC", help="damaged database")
    parser.add_argument("target", metavar="DB", help="new database; the file must not exist")


def run(args: Namespace) -> int:
    """Recover each ledger and print the losses; return 1 if there are any."""
    recovered = asyncio.run(recover(locate(args.source), locate(args.target), args.ledger))
    if args.json:
        print_json([one.as_json() for one in recovered])
    else:
        for one in recovered:
            print_line(f"{escape(one.ledger)}: {one.kept} entries kept unchanged, {one.recorded_anew} recorded again")
            moved = ((f"{first} to {last}", f"{now} to {now + last - first}") for first, last, now in one.moved)
            print_table(("old seq", "new seq"), moved, empty="every entry keeps its seq")
            print_table(("lost from", "to", "why"), one.lost, empty="nothing is lost")
    return 1 if any(one.lost for one in recovered) else 0
