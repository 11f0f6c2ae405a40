"""`notifications`: list the agent's unread notifications."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podledger.cli.output import clock, print_json, print_line
from podledger.cli.parser import Parser
from podledger.cli.session import with_ledger
from podledger.ledger import Ledger
from podledger.queries.notifications import DEFAULT_CONSUMER


def add_arguments(parser: Parser) -> None:
    """Add the consumer, and whether to acknowledge."""
    parser.add_argument(
        "--consumer",
        metavar="NAME",
        default=DEFAULT_CONSUMER,
        help=f"reader, each with its own position (default: {DEFAULT_CONSUMER})",
    )
    parser.add_argument("--ack", action="store_true", help="mark the printed ones as read")


def run(args: Namespace) -> None:
    """Print the unread notifications; with `--ack`, mark them as read."""
    with_ledger(args, lambda ledger: _print_unread(ledger, args))


async def _print_unread(ledger: Ledger, args: Namespace) -> None:
    last = 0
    found: list[dict[str, Any]] = []
    while page := await ledger.notifications(args.consumer, after=last):
        last = page[-1].seq
        if args.json:
            found += [notification.as_json() for notification in page]
        else:
            for notification in page:
                print_line(f"{clock(notification.recorded_us)}Z  {notification.line}")
    if args.json:
        print_json(found)
    elif not last:
        print_line("no notifications")
    if args.ack and last:
        await ledger.acknowledge(last, args.consumer)
