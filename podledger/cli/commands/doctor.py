"""`doctor`: look for risks and damage, and say how to fix them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from podledger.cli.output import print_json, print_table
from podledger.cli.parser import Parser
from podledger.cli.session import database_path, ledger_name
from podledger.doctor.examine import examine
from podledger.doctor.finding import all_ok


def add_arguments(parser: Parser) -> None:
    """Add the sockets to look at."""
    parser.add_argument(
        "--socket", metavar="PATH", action="append", default=[], help="also check this socket; repeat it for several"
    )


def run(args: Namespace) -> int:
    """Print the findings; return 1 if something is wrong."""
    findings = examine(database_path(args), ledger_name(args), sockets=[Path(socket) for socket in args.socket])
    if args.json:
        print_json({"ok": all_ok(findings), "findings": [finding._asdict() for finding in findings]})
    else:
        rows = ((f.level, f.check, f.detail, f.fix) for f in findings)
        print_table(("level", "check", "found", "fix"), rows, empty="nothing to check")
    return 0 if all_ok(findings) else 1
