"""`notifications`: list the agent's unread notifications."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator

from podledger.cli.output import clock, print_json_items, print_line
from podledger.cli.parser import Parser
from podledger.cli.session import with_ledger
from podledger.ledger import Ledger
from podledger.queries.notifications import DEFAULT_CONSUMER, Notification


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

    async def pages() -> AsyncIterator[list[Notification]]:
        nonlocal last
        while page := await ledger.notifications(args.consumer, after=last):
            yield page
            last = page[-1].seq

    if args.json:
        await print_json_items([notification.as_json() for notification in page] async for page in pages())
    else:
        async for page in pages():
            for notification in page:
                print_line(f"{clock(notification.recorded_us)}Z  {notification.line}")
        if not last:
            print_line("no notifications")
    if args.ack and last:
        await ledger.acknowledge(last, args.consumer)
