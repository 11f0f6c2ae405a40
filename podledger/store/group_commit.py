"""Group commit: a transaction takes everything that waits when it begins, and each caller gets its result after it.

A commit costs the same for one event as for hundreds, so many callers that append at the same time share it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple

from podledger.core.entries import Draft, Entry
from podledger.core.errors import PodledgerError, StorageError
from podledger.store.append import Appended, append_batch, restore_batch
from podledger.store.database import Database
from podledger.store.log import Rejection
from podledger.store.projections import StateCache

MAX_BATCH: Final = 1_000
"""How many events of different callers are committed together."""

MAX_WAITING: Final = 10_000
"""How many callers may wait for a commit. More callers wait until there is room."""

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """The events that one caller appends, and the lines that it rejected."""

    drafts: Sequence[Draft]
    rejections: Sequence[Rejection] = ()


class _Request(NamedTuple):
    """A caller that waits. `take` returns its batch, of at most `size` events, when the transaction begins."""

    take: Callable[[], Batch]
    size: int
    done: asyncio.Future[list[Entry]]


class GroupCommit:
    """Commits everything that one `Ledger` object appends.

    `clock` returns nanoseconds since 1970. `listeners` are called after each commit, on the event loop. Only the
    database's writer thread uses the cache of states.
    """

    def __init__(
        self,
        database: Database,
        ledger: str,
        *,
        clock: Callable[[], int],
        listeners: Sequence[Callable[[Appended], None]],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._listeners = listeners
        self._cache = StateCache()
        self._waiting: deque[_Request] = deque()
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def append(self, drafts: Sequence[Draft], rejections: Sequence[Rejection] = ()) -> list[Entry]:
        """Append events and rejected lines in one transaction; return the entries after the commit.

        Raises:
            StorageError: nothing was committed.
        """
        batch = Batch(drafts, rejections)
        return await self.append_from(lambda: batch, size=len(drafts))

    async def append_from(self, take: Callable[[], Batch], *, size: int) -> list[Entry]:
        """Append the batch that `take` returns when its transaction begins; it holds at most `size` events.

        So a line that reaches a queue before then can be part of the batch.

        Raises:
            StorageError: nothing was committed.
        """
        while len(self._waiting) >= MAX_WAITING:
            self._room.clear()
            await self._room.wait()
        request = _Request(take, size, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._task is None:
            self._task = asyncio.create_task(self._commit_waiting())
        return await request.done

    async def restore(self, entries: Sequence[Entry]) -> list[tuple[int, str]]:
        """Append exported entries unchanged, each if it continues the chain.

        Returns the positions in `entries` of those that do not, with the reasons.

        Raises:
            StorageError: nothing was committed.
        """
        work = partial(restore_batch, ledger=self._ledger, cache=self._cache, entries=entries)
        appended, refused = await self._database.write(work)
        self._notify(appended)
        return refused

    async def close(self) -> None:
        """Return when everything that waits is committed or refused."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _commit_waiting(self) -> None:
        """Commit until nobody waits: as many callers at a time as fit in a batch, but at least one."""
        try:
            while self._waiting:
                requests = [self._waiting.popleft()]
                size = requests[0].size
                while self._waiting and size + self._waiting[0].size <= MAX_BATCH:
                    requests.append(self._waiting.popleft())
                    size += requests[-1].size
                self._room.set()
                await self._commit(requests)
        finally:
            self._task = None

    async def _commit(self, requests: list[_Request]) -> None:
        batches = [request.take() for request in requests]
        work = partial(
            append_batch,
            ledger=self._ledger,
            cache=self._cache,
            drafts=[draft for batch in batches for draft in batch.drafts],
            rejections=[rejection for batch in batches for rejection in batch.rejections],
            now_us=self._clock() // 1000,
        )
        try:
            appended = await self._database.write(work)
        except PodledgerError as error:
            _refuse(requests, error)
            return
        except Exception as error:  # noqa: BLE001 - every error goes to the callers, and the next batch goes on
            refusal = StorageError(f"the batch was not committed: {error!r}")
            refusal.__cause__ = error
            _refuse(requests, refusal)
            return
        except BaseException:
            _refuse([*requests, *self._waiting], StorageError("the batch was not committed: the program is stopping"))
            self._waiting.clear()
            raise
        entries = iter(appended.entries)
        for request, batch in zip(requests, batches, strict=True):
            own = list(islice(entries, len(batch.drafts)))
            if not request.done.done():
                request.done.set_result(own)
        self._notify(appended)

    def _notify(self, appended: Appended) -> None:
        for listener in tuple(self._listeners):  # a listener may remove itself
            try:
                listener(appended)
            except Exception:
                logger.exception("a commit listener failed; the commit stands")


def _refuse(requests: list[_Request], error: PodledgerError) -> None:
    for request in requests:
        if not request.done.done():
            request.done.set_exception(error)
