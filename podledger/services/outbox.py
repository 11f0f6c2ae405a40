"""The outbox: it sends the ledger's reports to its parent, and retries with back-off until the parent takes them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from podledger.client import background
from podledger.client.frames import Answer, Recorded
from podledger.client.held import HeldConnection
from podledger.client.sender import in_pool, line_of
from podledger.core import strict_json
from podledger.core.errors import PodledgerError
from podledger.core.relaying import needs_offer
from podledger.core.stamps import Stamper, process_stamper
from podledger.core.text import escape
from podledger.ledger import Ledger
from podledger.store.append import Appended
from podledger.store.outbox_rows import OutboxItem, OutboxStatus, is_stamped

logger = logging.getLogger(__name__)

IN_FLIGHT: Final = 200
"""How many items are sent before their acknowledgements are read. Their statuses are stored in one transaction."""

DRAIN_POLL_S = 0.02
"""How often `Outbox.drain` counts the pending items."""


class Retry(NamedTuple):
    """How long to wait between attempts: it doubles from `first_wait_s` to `longest_wait_s`.

    Each step of an attempt may take `timeout_s`.
    """

    first_wait_s: float = 0.2
    longest_wait_s: float = 60.0
    timeout_s: float = 5.0

    def wait_s(self, attempts: int) -> float:
        """Return how many seconds to wait after `attempts` failed attempts."""
        doublings = min(max(0, attempts - 1), 60)  # 2.0 ** 1024 would overflow
        return min(self.longest_wait_s, self.first_wait_s * 2.0**doublings)


class Outbox:
    """Sends the outbox items of an open ledger to its parent, in their order, until the parent takes them.

    Enter it as an asynchronous context manager inside the ledger's. Items that are still pending when you leave the
    context stay in the ledger, and the next outbox sends them. The outbox wakes up when this ledger object commits, and
    every `poll_s` seconds for items that another process added. `stamper` stamps each item at its first attempt; the
    default is the stamper of this process.

    A parent that offers acknowledgements gets many items on one held connection, and an item is sent once the parent
    has acknowledged it. Any other parent gets each item on a connection of its own. Ends are only for a parent that
    offers to take relays: for another, they are skipped.

    After a failure, the items for the same socket wait: they keep their order, and do not delay those for another
    parent, which you may have configured since.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        retry: Retry = Retry(),  # noqa: B008 - immutable
        poll_s: float = 1.0,
        stamper: Stamper | None = None,
    ) -> None:
        self._ledger = ledger
        self._retry = retry
        self._poll_s = poll_s
        self._stamper = stamper
        self._wake = asyncio.Event()
        self._next_attempt: dict[str, float] = {}
        self._connections: dict[str, HeldConnection] = {}
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._stop_listening: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        self._stop_listening = self._ledger.on_commit(self._committed)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._disconnect()

    async def drain(self, *, within_s: float) -> int:
        """Wait up to `within_s` seconds until no item is pending; return how many still are."""
        until = time.monotonic() + within_s
        while (pending := await self._ledger.count_outbox_items(status="pending")) and time.monotonic() < until:
            self._wake.set()
            await asyncio.sleep(DRAIN_POLL_S)
        return pending

    async def send_pending(self) -> None:
        """Attempt the pending items once, in order. After a failure, the rest for that socket waits for its next turn.

        Raises:
            StorageError: the ledger cannot be read or written.
        """
        try:
            await self._send_pending()
        finally:
            if self._task is None:
                self._disconnect()

    async def _send_pending(self) -> None:
        async with self._sending:
            for socket in await self._ledger.outbox_sockets():
                if self._next_attempt.get(socket, 0.0) <= time.monotonic():
                    await self._send_to(socket)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._send_pending()
            except PodledgerError as error:
                logger.warning("outbox: %s", error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()

    def _disconnect(self) -> None:
        """Close every connection; a thread of the client's pool waits for the operation that was interrupted."""
        for connection in self._connections.values():
            connection.abort()
            background.pool().submit(connection.close)
        self._connections = {}

    async def _send_to(self, socket: str) -> None:
        """Send the items for one parent until none is left or one fails."""
        connection = self._connections.setdefault(socket, HeldConnection(socket, timeout_s=self._retry.timeout_s))
        while items := await self._ledger.outbox_items(status="pending", socket=socket):
            for start in range(0, len(items), IN_FLIGHT):
                if not await self._send(connection, items[start : start + IN_FLIGHT]):
                    return

    async def _send(self, connection: HeldConnection, items: Sequence[OutboxItem]) -> bool:
        """Attempt once to send items; return whether all are settled.

        The result is stored, so that a restart goes on counting. Leaving the context cancels this at any await; a known
        result is stored all the same.
        """
        try:
            offer = await in_pool(connection.accepts)
        except OSError as error:
            await self._keep([self._failed(items[0], error)])
            return False
        wanted, unwanted = _divided(items, offer)
        await self._keep([_settled(item, "skipped", attempts=item.attempts) for item in unwanted])
        wanted = await self._stamped(wanted)
        if "ack" in offer:
            return not wanted or await self._exchange(connection, wanted)
        for item in wanted:
            if not await self._send_alone(connection, item):
                return False
        return True

    async def _exchange(self, connection: HeldConnection, items: Sequence[OutboxItem]) -> bool:
        """Send items together, and settle those that the parent answers; return whether it answered all."""
        reports = [strict_json.loads(item.payload) for item in items]
        by_id = {report["stamp"]["id"]: item for report, item in zip(reports, items, strict=True)}
        lines = {stamp_id: _line(report, ack=True) for stamp_id, report in zip(by_id, reports, strict=True)}
        answers, error = await in_pool(partial(connection.exchange, lines))
        results = [_answered(by_id.pop(answer.id), answer) for answer in answers]
        if results:
            self._report_recovery(connection.path)
        if by_id and error is not None:
            results.append(self._failed(next(iter(by_id.values())), error))
        await self._keep(results)
        return not by_id

    async def _send_alone(self, connection: HeldConnection, item: OutboxItem) -> bool:
        """Send one item on a connection of its own; return whether that succeeded."""
        try:
            await in_pool(partial(connection.send, _line(strict_json.loads(item.payload))))
        except OSError as error:
            await self._keep([self._failed(item, error)])
            return False
        self._report_recovery(item.socket)
        await self._keep([_settled(item, "sent", attempts=item.attempts + 1)])
        return True

    async def _keep(self, items: list[OutboxItem]) -> None:
        if items:
            await asyncio.shield(self._ledger.keep_outbox_attempts(items))

    def _failed(self, item: OutboxItem, error: OSError) -> OutboxItem:
        """Have the items for the socket wait; return the item with its failure."""
        failure = str(error) or type(error).__name__
        self._report_failure(item.socket, failure)
        self._next_attempt[item.socket] = time.monotonic() + self._retry.wait_s(item.attempts + 1)
        return item._replace(attempts=item.attempts + 1, last_error=failure)

    def _report_failure(self, socket: str, failure: str) -> None:
        if socket not in self._next_attempt:
            text = "outbox: the parent at %s takes no reports; they wait, and are sent again: %s"
            logger.warning(text, escape(socket), escape(failure))

    def _report_recovery(self, socket: str) -> None:
        if self._next_attempt.pop(socket, None) is not None:
            logger.info("outbox: the parent at %s takes reports again", escape(socket))

    async def _stamped(self, items: list[OutboxItem]) -> list[OutboxItem]:
        """Return the pending items with their stamps, which are stored before the first attempt.

        So a redelivery carries the same stamp.
        """
        reports = [(item, strict_json.loads(item.payload)) for item in items]
        if new := [self._with_stamp(*each) for each in reports if not is_stamped(each[1])]:
            stored = {item.number: item for item in await self._ledger.keep_outbox_attempts(new)}
            items = [stored.get(item.number, item) for item in items]
        return [item for item in items if item.status == "pending"]

    def _with_stamp(self, item: OutboxItem, report: dict[str, Any]) -> OutboxItem:
        subject = report.get("stamp", {}).get("subject")
        report["stamp"] = (self._stamper or process_stamper()).stamp(subject)
        return item._replace(payload=strict_json.dumps(report))

    def _committed(self, appended: Appended) -> None:
        if appended.head.outbox_count:
            self._wake.set()


def _divided(items: Sequence[OutboxItem], offer: frozenset[str]) -> tuple[list[OutboxItem], list[OutboxItem]]:
    """Return the items that a parent with this offer takes, and those that it does not."""
    wanted: list[OutboxItem] = []
    unwanted: list[OutboxItem] = []
    for item in items:
        takes = "relay" in offer or not needs_offer(strict_json.loads(item.payload))
        (wanted if takes else unwanted).append(item)
    return wanted, unwanted


def _line(report: dict[str, Any], *, ack: bool = False) -> bytes:
    return line_of(report | {"stamp": report["stamp"] | {"ack": True}} if ack else report)


def _settled(item: OutboxItem, status: OutboxStatus, *, attempts: int, error: str | None = None) -> OutboxItem:
    return item._replace(status=status, attempts=attempts, last_error=error, settled_us=time.time_ns() // 1000)


def _answered(item: OutboxItem, answer: Answer) -> OutboxItem:
    """Return the item as the parent's answer settles it. The parent keeps a refused report among its rejected lines."""
    if isinstance(answer, Recorded):
        return _settled(item, "sent", attempts=item.attempts + 1)
    logger.warning("outbox: the parent at %s refused a report: %s", escape(item.socket), answer.message)
    return _settled(item, "refused", attempts=item.attempts + 1, error=answer.message)
