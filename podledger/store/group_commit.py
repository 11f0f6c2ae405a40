"""GroupCommit: what many callers append at the same time goes into one transaction, and each is answered after it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from podledger.core.entries import Draft, Entry
from podledger.core.errors import PodledgerError, StorageError
from podledger.store import append
from podledger.store.append import Appended
from podledger.store.database import Database
from podledger.store.log import Rejection
from podledger.store.projections import StateCache

MAX_BATCH: Final = 1_000
"""How many events of different callers are committed together."""

MAX_WAITING: Final = 10_000
"""How many callers may wait for a commit; the next ones wait to be let in."""

logger = logging.getLogger(__name__)


class _Request(NamedTuple):
    drafts: Sequence[Draft]
    rejections: Sequence[Rejection]
    done: asyncio.Future[list[Entry]]


class GroupCommit:
    """All that one object appends to one ledger.

    `now_us` gives the time in microseconds since 1970; `committed` is called after each commit, on the event loop. The
    cache of states is used on the database's writer thread alone.
    """

    def __init__(
        self,
        database: Database,
        ledger: str,
        *,
        now_us: Callable[[], int],
        committed: Callable[[Appended], None],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._now_us = now_us
        self._committed = committed
        self._cache = StateCache()
        self._waiting: deque[_Request] = deque()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def record(self, drafts: Sequence[Draft], rejections: Sequence[Rejection]) -> list[Entry]:
        """Append drafts and rejected lines in one transaction; return the entries after the commit.

        Raises:
            StorageError: nothing was committed.
        """
        while len(self._waiting) >= MAX_WAITING:
            self._room.clear()
            await self._room.wait()
        request = _Request(drafts, rejections, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._task is None:
            self._task = asyncio.create_task(self._commit_waiting())
        return await request.done

    async def restore(self, entries: Sequence[Entry]) -> list[tuple[int, str]]:
        """Append exported entries as they are; the reasons for those that do not continue the chain, by position.

        Raises:
            StorageError: nothing was committed.
        """
        work = partial(append.restore_batch, ledger=self._ledger, cache=self._cache, entries=entries)
        recorded, refused = await self._database.write(work, after=lambda result: self._remember(result[0]))
        self._committed(recorded)
        return refused

    async def close(self) -> None:
        """Return when everything that was waiting is committed or refused."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                await self._commit_batch(self._take_batch())
        finally:
            self._task = None

    def _take_batch(self) -> list[_Request]:
        batch = [self._waiting.popleft()]
        size = len(batch[0].drafts)
        while self._waiting and size + len(self._waiting[0].drafts) <= MAX_BATCH:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].drafts)
        self._room.set()
        return batch

    async def _commit_batch(self, batch: list[_Request]) -> None:
        work = partial(
            append.append_batch,
            ledger=self._ledger,
            cache=self._cache,
            drafts=[draft for request in batch for draft in request.drafts],
            rejections=[rejection for request in batch for rejection in request.rejections],
            now_us=self._now_us(),
        )
        try:
            recorded = await self._database.write(work, after=self._remember)
        except PodledgerError as error:
            _refuse(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must know, and the next go on
            refusal = StorageError(f"the batch was not committed: {error!r}")
            refusal.__cause__ = error
            _refuse(batch, refusal)
            return
        except BaseException:
            _refuse([*batch, *self._waiting], StorageError("the batch was not committed: the program is stopping"))
            self._waiting.clear()
            raise
        _answer(batch, recorded.entries)
        self._committed(recorded)

    def _remember(self, recorded: Appended) -> None:
        """Cache what a committed batch left, on the writer's thread, before the next transaction begins."""
        self._cache.advance(recorded.fold.states, (recorded.head.head_seq, recorded.head.rebuilds))


def _answer(batch: list[_Request], entries: list[Entry]) -> None:
    start = 0
    for request in batch:
        end = start + len(request.drafts)
        if not request.done.done():
            request.done.set_result(entries[start:end])
        start = end


def _refuse(batch: list[_Request], error: PodledgerError) -> None:
    for request in batch:
        if not request.done.done():
            request.done.set_exception(error)
