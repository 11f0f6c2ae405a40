"""What was received on its way into the log: kept until it is committed, however long the storage refuses it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from podledger.core.entries import Draft
from podledger.core.errors import PodledgerError
from podledger.core.text import pluralize
from podledger.ledger import Ledger
from podledger.server.connection import Peer
from podledger.server.limits import Limits
from podledger.store.log import Rejection

FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 5.0
"""How long the storage is left alone after it has refused a batch: doubling, up to the longest."""

GATHER_S: Final = 0.01
"""How long the first of a batch waits for others: a commit of many costs little more than one of a single report."""

MAX_BATCH_BYTES: Final = 4 << 20
GRANT_BYTES: Final = 200
"""What a rule of a scope becomes: a row, with its place in the indexes."""

logger = logging.getLogger("podledger.receiver")


class _Item(NamedTuple):
    what: Draft | Rejection
    size: int
    peer: Peer


class IngestQueue:
    """GroupCommit what is put into it, in its order, what has gathered at a time; a batch that fails is tried again.

    `taken` and `settled` count what was put and what of that is committed, `lost` what was given up at the end.
    `changed` is called after each commit, and when storage starts to fail.
    """

    def __init__(self, ledger: Ledger, limits: Limits, changed: Callable[[], None]) -> None:
        self.taken = 0
        self.settled = 0
        self.lost = 0
        self.trouble = ""
        self._ledger = ledger
        self._limits = limits
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopping = asyncio.Event()
        self._give_up_at: float | None = None
        self._task = asyncio.create_task(self._run(), name="podledger-committer")

    @property
    def has_room(self) -> bool:
        """Whether more should be read: storage works, and not too much waits for it."""
        waiting = self.taken - self.settled
        return not self.trouble and waiting < self._limits.max_queued and self._bytes < self._limits.max_queued_bytes

    @property
    def is_overfull(self) -> bool:
        """Whether not even what cannot wait should be put."""
        return self._bytes > 2 * self._limits.max_queued_bytes

    def put(self, what: Draft | Rejection, peer: Peer) -> None:
        """Keep `what` for the next commit; the limits are for the reader to heed."""
        item = _Item(what, _size(what), peer)
        self._queue.append(item)
        self._bytes += item.size
        self.taken += 1
        peer.queued += 1
        self._arrived.set()

    def hurry(self) -> None:
        """Commit what there is without waiting for more."""
        self._hurry.set()

    async def finish(self, grace_s: float) -> None:
        """Commit what there is; if storage fails, try for `grace_s` seconds, then log what is lost."""
        self._give_up_at = time.monotonic() + grace_s
        self._stopping.set()
        self._arrived.set()
        self.hurry()
        await self._task

    async def _run(self) -> None:
        while True:
            while self._queue:
                await self._gather()
                batch = self._next_batch()
                if not await self._commit(batch):
                    self._report_loss()
                    return
                self._settle(batch)
            if self._stopping.is_set():
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def _gather(self) -> None:
        if len(self._queue) < self._limits.max_batch and not self._stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), GATHER_S)
        self._hurry.clear()

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < self._limits.max_batch and size < MAX_BATCH_BYTES:
            item = self._queue.popleft()
            batch.append(item)
            size += item.size
        return batch

    async def _commit(self, batch: list[_Item]) -> bool:
        """Try until it is committed; false if that was given up."""
        drafts = [item.what for item in batch if isinstance(item.what, Draft)]
        rejections = [item.what for item in batch if isinstance(item.what, Rejection)]
        wait_s = FIRST_RETRY_S
        while (trouble := await self._try(drafts, rejections)) is not None:
            self._suffer(trouble)
            if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                return False
            await self._rest(wait_s)
            wait_s = min(2 * wait_s, LONGEST_RETRY_S)
        if self.trouble:
            logger.warning("the ledger takes reports again, after: %s", self.trouble)
            self.trouble = ""
        return True

    async def _try(self, drafts: list[Draft], rejections: list[Rejection]) -> str | None:
        """Commit once; why that failed, or None."""
        try:
            await self._ledger.record(drafts, rejections)
        except PodledgerError as error:
            return error.message or type(error).__name__
        except Exception as error:  # noqa: BLE001 - whatever it is: to let go of the batch would lose it
            return repr(error)
        return None

    def _suffer(self, trouble: str) -> None:
        if not self.trouble:
            logger.warning("the ledger takes no reports, so none are read until it does: %s", trouble)
        self.trouble = trouble
        self._loop.call_soon(self._changed)

    async def _rest(self, wait_s: float) -> None:
        """Wait, but not past the moment to give up."""
        if self._give_up_at is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
        else:
            await asyncio.sleep(max(0.0, min(wait_s, self._give_up_at - time.monotonic())))

    def _settle(self, batch: list[_Item]) -> None:
        self.settled += len(batch)
        for item in batch:
            self._bytes -= item.size
            item.peer.queued -= 1
        self._loop.call_soon(self._changed)

    def _report_loss(self) -> None:
        lost = self.lost = self.taken - self.settled
        logger.error("%s that had been read could not be committed: %s", pluralize(lost, "report"), self.trouble)


def _size(what: Draft | Rejection) -> int:
    """About how many bytes of memory it takes; text may take four for each of its own."""
    if isinstance(what, Rejection):
        return len(what.raw)
    scope = what.content.scope if what.content else ""
    return sys.getsizeof(what.payload) + sys.getsizeof(scope) + GRANT_BYTES * scope.count("{")
