"""The outbox: it sends the reports that the ledger owes its parent, retries with back-off, and gives up in the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from podledger.client import sender
from podledger.core import strict_json
from podledger.core.errors import PodledgerError
from podledger.core.stamps import Stamper, process_stamper
from podledger.ledger import Ledger
from podledger.store.append import Appended
from podledger.store.outbox_rows import OutboxItem, OutboxStatus

logger = logging.getLogger(__name__)

DRAIN_POLL_S = 0.02
"""How often `Outbox.drain` counts the pending items."""


class Retry(NamedTuple):
    """How many attempts an item gets, and the wait between them: it doubles from `first_wait_s` to `longest_wait_s`."""

    attempts: int = 5
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    timeout_s: float = 5.0

    def wait_s(self, attempts: int) -> float:
        """Return how many seconds to wait after `attempts` failed attempts."""
        doublings = min(max(0, attempts - 1), 60)  # 2.0 ** 1024 would overflow
        return min(self.longest_wait_s, self.first_wait_s * 2.0**doublings)

    def status_after(self, attempts: int, failure: str | None) -> OutboxStatus:
        """Return the status of an item after its last attempt succeeded (`failure` is None) or failed."""
        if failure is None:
            return "sent"
        return "dropped" if attempts >= self.attempts else "pending"


class Outbox:
    """Sends the outbox items of an open ledger to its parent, in their order.

    Enter it as an asynchronous context manager inside the ledger's. An item that fails `retry.attempts` times becomes
    `dropped`, with a warning in the log. Items that are still pending when you leave the context stay in the ledger,
    and the next outbox sends them. The outbox wakes up when this ledger object commits, and every `poll_s` seconds for
    items that another process added. `stamper` stamps each item at its first attempt; the default is the stamper of
    this process.
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

    async def drain(self, *, within_s: float) -> int:
        """Wait up to `within_s` seconds until no item is pending; return how many still are."""
        until = time.monotonic() + within_s
        while (pending := await self._ledger.count_outbox_items(status="pending")) and time.monotonic() < until:
            self._wake.set()
            await asyncio.sleep(DRAIN_POLL_S)
        return pending

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                while pending := await self._ledger.outbox_items(status="pending"):
                    for item in pending:
                        await self._send(item)
            except PodledgerError as error:
                logger.warning("outbox: %s", error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()

    async def _send(self, item: OutboxItem) -> None:
        """Try until one succeeds or none is left. Each attempt is stored, so that a restart goes on counting."""
        item = await self._stamped(item)
        while item.status == "pending":
            item = self._after_attempt(item, failure=await self._attempt(item))
            await asyncio.shield(self._ledger.update_outbox_item(item))
            if item.status == "pending":
                await asyncio.sleep(self._retry.wait_s(item.attempts))

    def _after_attempt(self, item: OutboxItem, failure: str | None) -> OutboxItem:
        attempts = item.attempts + 1
        status = self._retry.status_after(attempts, failure)
        if status == "dropped":
            logger.warning(
                "outbox: the report of seq %d to %s is given up after %d attempts: %s",
                *(item.seq, item.socket, attempts, failure),
            )
        settled_us = None if status == "pending" else time.time_ns() // 1000
        return item._replace(status=status, attempts=attempts, last_error=failure, settled_us=settled_us)

    async def _stamped(self, item: OutboxItem) -> OutboxItem:
        """Return the item with its stamp, which is stored before the first attempt: a redelivery carries the same."""
        event = strict_json.loads(item.payload)
        if "stamp" in event:
            return item
        [entry] = [entry async for entry in self._ledger.entries(since=item.seq, until=item.seq)]
        event["stamp"] = (self._stamper or process_stamper()).stamp(entry.subject)
        stamped = item._replace(payload=strict_json.dumps(event))
        await self._ledger.update_outbox_item(stamped)
        return stamped

    async def _attempt(self, item: OutboxItem) -> str | None:
        """Send the item once; return why that failed, or None."""
        line = sender.line_of(strict_json.loads(item.payload))
        try:
            await sender.deliver_async(item.socket, line, timeout_s=self._retry.timeout_s)
        except OSError as error:
            return str(error) or type(error).__name__
        return None

    def _committed(self, appended: Appended) -> None:
        if appended.head.outbox_count:
            self._wake.set()
