"""The queue of received lines: it keeps them until they are committed, however long the storage refuses them."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Final, NamedTuple

from podledger.core.entries import Draft, Entry
from podledger.core.errors import PodledgerError
from podledger.core.protocol import error_frame, recorded_frame
from podledger.core.text import pluralize
from podledger.server.connection import ClientConnection
from podledger.server.limits import Limits
from podledger.store.group_commit import Batch, GroupCommit
from podledger.store.log import Rejection

FIRST_RETRY_S: Final = 0.1
LONGEST_RETRY_S: Final = 5.0
"""How long to wait after the storage has refused a batch: first, and at most. The wait doubles in between."""

GATHER_S: Final = 0.01
"""How long the first line waits for others. Committing many costs little more than committing one."""

QUIET_S: Final = 0.0005
QUIET_PART: Final = 8
"""If senders wait for answers, the batch is committed as soon as no line has arrived for this long, or for this part of
the time that the last commit took: the slower a commit is, the more it pays to share it."""

MAX_BATCH_BYTES: Final = 4 << 20
GRANT_BYTES: Final = 200
"""About how many bytes one rule of a scope adds: a row, with its place in the indexes."""

SHARE: Final = 4
"""One process may have this part of the queue, a quarter."""

logger = logging.getLogger("podledger.receiver")


class _Item(NamedTuple):
    """A line that waits, with the connection that sent it.

    `answer_to` is the id in its stamp if the line is answered after the commit, "" if that id could not be read, and
    None if the line is not answered.
    """

    content: Draft | Rejection
    size: int
    connection: ClientConnection
    answer_to: str | None


class IngestQueue:
    """Keeps lines in their order, bounds how many each process may have here, and retries until they are committed.

    `taken` counts the lines put in, `settled` those of them that are committed, `lost` those given up at
    the end; `reports` counts those that are reports.
    `trouble` says why the storage refuses lines; it is empty while the storage works.
    """

    def __init__(self, commits: GroupCommit, limits: Limits) -> None:
        self.taken = 0
        self.settled = 0
        self.lost = 0
        self.reports = 0
        self.trouble = ""
        self._commits = commits
        self._limits = limits
        self._share = max(1, limits.max_queued // SHARE)
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Item] = deque()
        self._batch: list[_Item] = []
        self._bytes = 0
        self._owed = 0
        self._commit_s = 0.0
        self._unbounded = False
        self._progress: asyncio.Future[None] = self._loop.create_future()
        self._arrived = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stopping = asyncio.Event()
        self._give_up_at: float | None = None
        self._task = asyncio.create_task(self._run(), name="podledger-ingest")

    def has_room_for(self, connection: ClientConnection) -> bool:
        """Return whether to read more: the storage works, and neither the sender's nor the whole queue is full."""
        return self._unbounded or (
            not self.trouble
            and self.taken - self.settled < self._limits.max_queued
            and self._bytes < self._limits.max_queued_bytes
            and connection.peer.queued < self._share
        )

    def lift_limits(self) -> None:
        """Accept every line that was read, because the receiver stops."""
        self._unbounded = True

    @property
    def is_overfull(self) -> bool:
        """Whether the queue is too full even for lines that cannot wait."""
        return self._bytes > 2 * self._limits.max_queued_bytes

    def put(self, content: Draft | Rejection, connection: ClientConnection, *, answer_to: str | None = None) -> None:
        """Keep a line for the next commit, which is soon if the client waits for the answer `answer_to` its stamp's id.

        The reader checks the limits.
        """
        if isinstance(content, Rejection):
            size = len(content.raw)
        else:
            self.reports += 1
            # Text may take four bytes of memory for each of its own.
            scope = content.delegation.scope if content.delegation else ""
            size = sys.getsizeof(content.payload) + sys.getsizeof(scope) + GRANT_BYTES * scope.count("{")
        self._queue.append(_Item(content, size, connection, answer_to))
        if answer_to is not None:
            connection.owe()
            self._owed += 1
            self._hurry.set()
        self._bytes += size
        self.taken += 1
        connection.peer.queued += 1
        self._arrived.set()

    def hurry(self) -> None:
        """Commit the queued lines without waiting for more."""
        self._hurry.set()

    def progress(self) -> asyncio.Future[None]:
        """Return a future that is done at the next commit."""
        if self._progress.done():
            self._progress = self._loop.create_future()
        return self._progress

    async def committed(self, count: int) -> None:
        """Wait until the first `count` lines are committed."""
        while self.settled < count:
            await asyncio.shield(self.progress())

    async def finish(self, grace_s: float) -> None:
        """Commit the queued lines; if storage fails, retry for `grace_s` seconds, then log the loss."""
        self._give_up_at = time.monotonic() + grace_s
        self._stopping.set()
        self._arrived.set()
        self._hurry.set()
        await self._task

    async def _run(self) -> None:
        wait_s = FIRST_RETRY_S
        while await self._gather():
            started = time.monotonic()
            try:
                entries = await self._commits.append_from(self._take, size=self._limits.max_batch)
            except Exception as error:  # noqa: BLE001 - after any error, the batch is kept, so that no line is lost
                self._record_failure(error)
                if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                    self._report_loss()
                    return
                await self._rest(wait_s)
                wait_s = min(2 * wait_s, LONGEST_RETRY_S)
            else:
                wait_s = FIRST_RETRY_S
                self._commit_s = time.monotonic() - started
                self._settle(entries)

    async def _gather(self) -> bool:
        """Wait for lines; return False when there are none and the receiver stops."""
        while not (self._queue or self._batch):
            if self._stopping.is_set():
                return False
            self._arrived.clear()
            await self._arrived.wait()
        if not self._batch and len(self._queue) < self._limits.max_batch and not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._hurry.wait()
                    if self._owed:
                        await self._until_quiet()
        self._hurry.clear()
        return True

    async def _until_quiet(self) -> None:
        """Wait until no more lines arrive, or the batch is full."""
        arrived = 0
        while arrived < self.taken and len(self._queue) < self._limits.max_batch:
            arrived = self.taken
            await asyncio.sleep(max(QUIET_S, self._commit_s / QUIET_PART))

    def _take(self) -> Batch:
        """Return the batch to commit: the one that was refused, or else the first lines of the queue."""
        batch = self._batch
        if not batch:
            size = 0
            while self._queue and len(batch) < self._limits.max_batch and size < MAX_BATCH_BYTES:
                batch.append(self._queue.popleft())
                size += batch[-1].size
        return Batch(
            [item.content for item in batch if isinstance(item.content, Draft)],
            [item.content for item in batch if isinstance(item.content, Rejection)],
        )

    def _settle(self, entries: list[Entry]) -> None:
        """Answer and remove the batch, which is committed as `entries`, and report progress."""
        if self._owed:
            self._answer(entries)
        for item in self._batch:
            self._bytes -= item.size
            item.connection.peer.queued -= 1
        self.settled += len(self._batch)
        self._batch = []
        if self.trouble:
            logger.warning("the ledger takes reports again, after: %s", self.trouble)
            self.trouble = ""
        if not self._progress.done():
            self._progress.set_result(None)

    def _answer(self, entries: list[Entry]) -> None:
        """Send the answers of the committed batch, those to one connection together."""
        committed = iter(entries)
        answers: dict[ClientConnection, list[bytes]] = {}
        for content, _, connection, answer_to in self._batch:
            answer = next(committed) if isinstance(content, Draft) else content
            if answer_to is not None:
                answers.setdefault(connection, []).append(_frame(answer, answer_to))
        for connection, frames in answers.items():
            self._owed -= len(frames)
            connection.answer(frames)

    def _record_failure(self, error: Exception) -> None:
        trouble = (error.message if isinstance(error, PodledgerError) else repr(error)) or type(error).__name__
        if not self.trouble:
            logger.warning("the ledger takes no reports, so none are read until it does: %s", trouble)
        self.trouble = trouble

    async def _rest(self, wait_s: float) -> None:
        """Wait before the next retry, but not past the moment to give up."""
        if self._give_up_at is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
        else:
            await asyncio.sleep(max(0.0, min(wait_s, self._give_up_at - time.monotonic())))

    def _report_loss(self) -> None:
        self.lost = self.taken - self.settled
        logger.error("%s that had been read could not be committed: %s", pluralize(self.lost, "report"), self.trouble)


def _frame(answer: Entry | Rejection, stamp_id: str) -> bytes:
    return recorded_frame(answer) if isinstance(answer, Entry) else error_frame(answer.reason, stamp_id)
