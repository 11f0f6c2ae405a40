"""`bundle`: write part of a ledger to a file that others can read and check."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection
from typing import Final

from podledger.bundle.coverage import verifier
from podledger.bundle.request import BundleRequest
from podledger.cli.output import print_json
from podledger.cli.parser import Parser
from podledger.cli.session import moment_of, with_ledger
from podledger.cli.terminal import progress
from podledger.core.errors import UsageError
from podledger.core.text import escape

MAX_NAMED: Final = 10
"""How many pods the summary names."""


def add_arguments(parser: Parser) -> None:
    """Add the target, and the part of the ledger to put into it."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="file to write")
    parser.add_argument("--pod", metavar="NAME", help="only this pod and all its descendants")
    parser.add_argument("--since", metavar="X", help="from this seq or time on")
    parser.add_argument("--until", metavar="X", help="up to and including this seq or time")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--verifier",
        action="store_true",
        help="write no bundle, but print a program that verifies one without podledger",
    )


def run(args: Namespace) -> None:
    """Write the bundle and print a summary of its content."""
    if args.verifier:
        print(verifier(), end="")
        return
    if args.file is None:
        raise UsageError("the bundle has no name", hint="give FILE, the file to write")
    request = BundleRequest(args.pod, moment_of(args.since), moment_of(args.until))
    with progress("bundle") as update:
        done = with_ledger(
            args, lambda ledger: ledger.bundle(args.file, request, overwrite=args.force, progress=update)
        )
    if args.json:
        print_json({"file": args.file, **done.as_json()})
        return
    scope = done.scope
    print(
        f"{_names(scope.pods)}; seq {scope.since_seq} to {scope.until_seq}: {done.shown} of {done.entries} entries "
        f"shown, {done.gaps} known gaps, head {done.entries}:{done.head_digest}"
    )


def _names(pods: Collection[str] | None) -> str:
    if pods is None:
        return "all pods"
    more = f" and {len(pods) - MAX_NAMED} more" if len(pods) > MAX_NAMED else ""
    return ", ".join(escape(pod, 60) for pod in sorted(pods)[:MAX_NAMED]) + more
