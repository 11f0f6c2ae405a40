"""The outbox at work: what the ledger owes its parent is sent in the background, tried again, and at last given up."""

from __future__ import annotations

import asyncio
import logging
import time
from types import TracebackType
from typing import Final, NamedTuple, Self

from podledger.client import sender
from podledger.core import strict_json
from podledger.core.errors import PodledgerError
from podledger.core.stamps import Stamper, process_stamper
from podledger.ledger import Ledger
from podledger.store.append import Appended
from podledger.store.outbox_rows import OutboxItem, OutboxStatus

logger = logging.getLogger(__name__)

BACKLOG: Final = 1_000
"""How many outbox_items are read from the outbox at a time."""


class Retry(NamedTuple):
    """How often an item is tried, and how long is waited before it is tried again: doubling, up to a longest."""

    attempts: int = 5
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    timeout_s: float = 5.0

    def wait_s(self, attempts: int) -> float:
        """How long to wait after so many attempts."""
        doublings = min(max(0, attempts - 1), 60)  # beyond that, whatever the first wait is, it is the longest
        return min(self.longest_wait_s, self.first_wait_s * 2.0**doublings)


class Outbox:
    """Sends what an open ledger owes its parent: an asynchronous context manager beside the ledger's.

    Emissions go out in their order. One that fails `retry.attempts` times is kept as dropped, with a warning; what is
    pending when the context is left is sent by the next. Every `poll_s` seconds it looks for what other processes owe.
    Each is stamped at its first attempt, by `stamper` (or else this process's).
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
        self._owing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._ledger.on_commit(self._committed)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def drain(self, *, within_s: float) -> int:
        """Wait until nothing is pending, but no longer than `within_s`; how much still is."""
        until = time.monotonic() + within_s
        while (pending := len(await self._ledger.outbox_items(status="pending"))) and time.monotonic() < until:
            self._owing.set()
            await asyncio.sleep(0.02)
        return pending

    async def _run(self) -> None:
        while True:
            self._owing.clear()
            try:
                while await self._send_pending():
                    pass
            except PodledgerError as error:
                logger.warning("outbox: %s", error.message)
            try:
                await asyncio.wait_for(self._owing.wait(), self._poll_s)
            except TimeoutError:
                continue

    async def _send_pending(self) -> bool:
        pending = await self._ledger.outbox_items(status="pending")
        for item in pending:
            await self._send(item)
        return len(pending) == BACKLOG

    async def _send(self, item: OutboxItem) -> None:
        """Try until it is sent or given up; each attempt is kept, so that a restart goes on counting."""
        item = await self._stamped(item)
        while item.status == "pending":
            failure = await self._attempt(item)
            attempts = item.attempts + 1
            status: OutboxStatus = (
                "sent" if failure is None else "dropped" if attempts >= self._retry.attempts else "pending"
            )
            settled_us = None if status == "pending" else time.time_ns() // 1000
            item = item._replace(status=status, attempts=attempts, last_error=failure, settled_us=settled_us)
            if status == "dropped":
                logger.warning(
                    "outbox: the report of seq %d to %s is given up after %d attempts: %s",
                    *(item.seq, item.socket, attempts, failure),
                )
            await asyncio.shield(self._ledger.update_outbox_item(item))
            if status == "pending":
                await asyncio.sleep(self._retry.wait_s(attempts))

    async def _stamped(self, item: OutboxItem) -> OutboxItem:
        """The item with its stamp, which is kept before it is sent, so that a redelivery has the same."""
        event = strict_json.loads(item.payload)
        if "stamp" in event:
            return item
        [entry] = [entry async for entry in self._ledger.entries(since=item.seq, until=item.seq)]
        event["stamp"] = (self._stamper or process_stamper()).stamp(entry.subject)
        stamped = item._replace(payload=strict_json.dumps(event))
        await self._ledger.update_outbox_item(stamped)
        return stamped

    async def _attempt(self, item: OutboxItem) -> str | None:
        """Send once; why it failed, or None."""
        line = sender.line_of(strict_json.loads(item.payload))
        try:
            await sender.deliver_async(item.socket, line, timeout_s=self._retry.timeout_s)
        except OSError as error:
            return str(error) or type(error).__name__
        return None

    def _committed(self, recorded: Appended) -> None:
        if recorded.head.outbox_count:
            self._owing.set()
