"""`outbox`: list the reports that wait for the owner's parent, retry them, or discard some."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.output import clock, print_json, print_table
from podledger.cli.parser import Parser, at_least
from podledger.cli.session import with_ledger
from podledger.core import strict_json
from podledger.ledger import Ledger
from podledger.services.outbox import Outbox
from podledger.store.outbox_rows import OutboxItem


def add_arguments(parser: Parser) -> None:
    """Add the two actions."""
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--retry", action="store_true", help="try now to send them, in order, before listing the rest")
    action.add_argument(
        "--discard",
        metavar="NUMBER",
        type=at_least(int, 1),
        action="append",
        default=[],
        help="never send this report; repeat it for several",
    )


def run(args: Namespace) -> int:
    """Print the reports that wait; return 1 if an attempt to send one of them failed."""

    async def work(ledger: Ledger) -> list[OutboxItem]:
        if args.discard:
            await ledger.discard_outbox_items(args.discard)
        if args.retry:
            await Outbox(ledger).send_pending()
        return await _pending(ledger)

    items = with_ledger(args, work)
    if args.json:
        print_json([_as_json(item) for item in items])
    else:
        header = ("number", "seq", "since (UTC)", "parent", "pod", "attempts", "last error")
        print_table(header, map(_row, items), empty="no report waits for the parent")
    return 1 if any(item.last_error for item in items) else 0


async def _pending(ledger: Ledger) -> list[OutboxItem]:
    items: list[OutboxItem] = []
    while page := await ledger.outbox_items(status="pending", after=items[-1].number if items else 0):
        items += page
    return items


def _row(item: OutboxItem) -> tuple[object, ...]:
    pod = strict_json.loads(item.payload).get("sub_pod")
    return (item.number, item.seq, clock(item.created_us), item.socket, pod, item.attempts, item.last_error or "")


def _as_json(item: OutboxItem) -> dict[str, object]:
    fields = item._asdict()
    del fields["row_checksum"]
    return fields | {"payload": strict_json.loads(item.payload)}
