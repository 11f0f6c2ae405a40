"""`outbox`: list the reports to the owner's parent by their status, retry those that wait, or discard some."""

from __future__ import annotations

from argparse import Namespace
from typing import get_args

from podledger.cli.output import clock, print_json, print_table
from podledger.cli.parser import Parser, at_least
from podledger.cli.session import with_ledger
from podledger.core import strict_json
from podledger.ledger import Ledger
from podledger.services.outbox import Outbox
from podledger.store.outbox_rows import OutboxItem, OutboxStatus


def add_arguments(parser: Parser) -> None:
    """Add the two actions, and the status of the listed reports."""
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--retry", action="store_true", help="try now to send them, in order, before listing the rest")
    action.add_argument(
        "--discard",
        metavar="NUMBER",
        type=at_least(int, 1),
        action="append",
        default=[],
        help="never send this report, which waits or was refused; repeat it for several",
    )
    parser.add_argument(
        "--status",
        choices=get_args(OutboxStatus),
        default="pending",
        help="list the reports with this status (default: pending, those that wait)",
    )


def run(args: Namespace) -> int:
    """Print the reports with the status asked for; return 1 if one that waits failed, or one was refused."""

    async def work(ledger: Ledger) -> tuple[list[OutboxItem], int]:
        if args.discard:
            await ledger.discard_outbox_items(args.discard)
        if args.retry:
            await Outbox(ledger).send_pending()
        return await _items(ledger, args.status), await ledger.count_outbox_items(status="refused")

    items, refused = with_ledger(args, work)
    if args.json:
        print_json([_as_json(item) for item in items])
    else:
        header = ("number", "seq", "since (UTC)", "parent", "pod", "attempts", "last error")
        empty = "no report waits for the parent" if args.status == "pending" else f"no report is {args.status}"
        print_table(header, map(_row, items), empty=empty)
    return 1 if refused or any(item.last_error for item in items if item.status == "pending") else 0


async def _items(ledger: Ledger, status: OutboxStatus) -> list[OutboxItem]:
    items: list[OutboxItem] = []
    while page := await ledger.outbox_items(status=status, after=items[-1].number if items else 0):
        items += page
    return items


def _row(item: OutboxItem) -> tuple[object, ...]:
    report = strict_json.loads(item.payload)
    pod = report.get("sub_pod") or report.get("pod_name")
    return (item.number, item.seq, clock(item.created_us), item.socket, pod, item.attempts, item.last_error or "")


def _as_json(item: OutboxItem) -> dict[str, object]:
    fields = item._asdict()
    del fields["row_checksum"]
    return fields | {"payload": strict_json.loads(item.payload)}
