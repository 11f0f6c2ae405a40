"""`release`: record that a person takes back the scope of a pod that is gone."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.facts import record
from podledger.cli.parser import Parser


def add_arguments(parser: Parser) -> None:
    """Add the pod and the reason."""
    parser.add_argument("pod", metavar="POD", help="name of the pod")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why it is released; kept in the log")


def run(args: Namespace) -> None:
    """Record the release; a person saw that the pod is gone, so its evidence is `observed`."""
    record(args, {"kind": "pod_reclaimed", "pod_name": args.pod, "reason": args.reason}, evidence="observed")
