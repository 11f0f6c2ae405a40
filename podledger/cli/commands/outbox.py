"""`outbox`: list the reports that wait for the owner's parent, retry them, or discard some."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator

from podledger.cli.output import clock, print_json_items, print_table_pages
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

    async def work(ledger: Ledger) -> bool:
        if args.discard:
            await ledger.discard_outbox_items(args.discard)
        if args.retry:
            await Outbox(ledger).send_pending()
        pending = _Pending(ledger)
        if args.json:
            await print_json_items([_as_json(item) for item in page] async for page in pending.pages())
        else:
            header = ("number", "seq", "since (UTC)", "parent", "pod", "attempts", "last error")
            rows = (map(_row, page) async for page in pending.pages())
            await print_table_pages(header, rows, empty="no report waits for the parent")
        return pending.failed

    return 1 if with_ledger(args, work) else 0


class _Pending:
    """The reports that wait; `failed` says whether an attempt to send one of those read so far failed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.failed = False

    async def pages(self) -> AsyncIterator[list[OutboxItem]]:
        """Yield the reports, a page at a time."""
        last = 0
        while page := await self._ledger.outbox_items(status="pending", after=last):
            self.failed = self.failed or any(item.last_error for item in page)
            yield page
            last = page[-1].number


def _row(item: OutboxItem) -> tuple[object, ...]:
    pod = strict_json.loads(item.payload).get("sub_pod")
    return (item.number, item.seq, clock(item.created_us), item.socket, pod, item.attempts, item.last_error or "")


def _as_json(item: OutboxItem) -> dict[str, object]:
    fields = item._asdict()
    del fields["row_checksum"]
    return fields | {"payload": strict_json.loads(item.payload)}
