"""`exited`: record that a child process ended."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.facts import record
from podledger.cli.parser import Parser, at_least


def add_arguments(parser: Parser) -> None:
    """Add the child and how it ended."""
    parser.add_argument("pod", metavar="POD", help="name of the child")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--code", type=at_least(int, 0), metavar="N", help="exit code of the process")
    how.add_argument("--signal", type=at_least(int, 1), metavar="N", help="signal that ended the process")


def run(args: Namespace) -> None:
    """Record the exit."""
    record(args, {"kind": "pod_exited", "pod_name": args.pod, "exit_code": args.code, "signal": args.signal})
