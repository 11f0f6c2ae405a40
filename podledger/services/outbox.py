"""The outbox: it sends the ledger's reports to its parent, and retries with back-off until the parent takes them."""

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
from podledger.core.text import escape
from podledger.ledger import Ledger
from podledger.store.append import Appended
from podledger.store.outbox_rows import OutboxItem

logger = logging.getLogger(__name__)

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

    async def send_pending(self) -> None:
        """Attempt the pending items once, in order. After a failure, the rest for that socket waits for its next turn.

        Raises:
            StorageError: the ledger cannot be read or written.
        """
        for socket in await self._ledger.outbox_sockets():
            if self._next_attempt.get(socket, 0.0) <= time.monotonic():
                await self._send_to(socket)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self.send_pending()
            except PodledgerError as error:
                logger.warning("outbox: %s", error.message)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()

    async def _send_to(self, socket: str) -> None:
        while items := await self._ledger.outbox_items(status="pending", socket=socket):
            for item in items:
                if not await self._send(item):
                    return

    async def _send(self, item: OutboxItem) -> bool:
        """Attempt once to send an item; return whether it is settled.

        The result is stored, so that a restart goes on counting.
        Leaving the context cancels this at any await; a known result is stored all the same.
        """
        item = await self._stamped(item)
        if item.status != "pending":
            return True
        failure = await self._attempt(item)
        attempts = item.attempts + 1
        if failure is None:
            self._report_recovery(item.socket)
            now_us = time.time_ns() // 1000
            after = item._replace(status="sent", attempts=attempts, last_error=None, settled_us=now_us)
        else:
            self._report_failure(item.socket, failure)
            self._next_attempt[item.socket] = time.monotonic() + self._retry.wait_s(attempts)
            after = item._replace(attempts=attempts, last_error=failure)
        await asyncio.shield(self._ledger.keep_outbox_attempt(after))
        return failure is None

    def _report_failure(self, socket: str, failure: str) -> None:
        if socket not in self._next_attempt:
            text = "outbox: the parent at %s takes no reports; they wait, and are sent again: %s"
            logger.warning(text, escape(socket), escape(failure))

    def _report_recovery(self, socket: str) -> None:
        if self._next_attempt.pop(socket, None) is not None:
            logger.info("outbox: the parent at %s takes reports again", escape(socket))

    async def _stamped(self, item: OutboxItem) -> OutboxItem:
        """Return the item with its stamp, which is stored before the first attempt: a redelivery carries the same."""
        event = strict_json.loads(item.payload)
        if "stamp" in event:
            return item
        [entry] = [entry async for entry in self._ledger.entries(since=item.seq, until=item.seq)]
        event["stamp"] = (self._stamper or process_stamper()).stamp(entry.subject)
        return await self._ledger.keep_outbox_attempt(item._replace(payload=strict_json.dumps(event)))

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
