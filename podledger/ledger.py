"""`Ledger`: the one front door to a pod's record."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from sqlalchemy import Connection

from podledger.bundle.check import read_bundle
from podledger.bundle.scope import BundleRequest, BundleScope
from podledger.bundle.write import BundleResult, make_bundle
from podledger.core.errors import DamagedError, LedgerNotFoundError, StorageError, UsageError
from podledger.core.events import WITHHELD, Entry, Evidence, LedgerEvent, draft
from podledger.core.names import check_name
from podledger.core.rules import fact_of
from podledger.integrity.notes import Note, note_at
from podledger.integrity.verify import VerifyResult, verify
from podledger.mirror import Mirror
from podledger.queries import notifications, registry
from podledger.queries.diff import RegistryDiff, diff
from podledger.queries.explain import Explained, Story, explain
from podledger.queries.gaps import Gap, Missing, gaps_at, missing_at
from podledger.queries.notifications import DEFAULT_CONSUMER, Notification
from podledger.queries.registry import Holder, Moment, Pod
from podledger.queries.replay import ChangedOutcome, ReplayOptions, ReplayResult, replay
from podledger.store import log, outbox_rows
from podledger.store.append import Appended
from podledger.store.connections import BUSY_TIMEOUT_S, DAMAGED_HINT, read_only
from podledger.store.database import Database
from podledger.store.expected_rows import Progress
from podledger.store.files import check_apart
from podledger.store.group_commit import GroupCommit
from podledger.store.log import Head, Rejected, Selection
from podledger.store.outbox_rows import OutboxItem, OutboxStatus
from podledger.store.rebuild import differing, put_right
from podledger.store.schema import check_whole

PAGE: Final = 1_000
T = TypeVar("T")


class Ledger:
    """The record of one owning pod: an append-only log, and all that is projected from it.

    Use it as an asynchronous context manager, made by `Ledger.open`. Calls may overlap freely: what is appended at the
    same time is committed together. All times it gives are UTC.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        name: str | None,
        *,
        create: bool,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._target = target
        self._wanted = name
        self._create = create
        self._busy_timeout_s = busy_timeout_s
        self._clock = clock
        self._database: Database | None = None
        self._name = ""
        self._commits: GroupCommit | None = None
        self._mirror = Mirror(self._mirrored)
        self._listeners: list[Callable[[Appended], None]] = [self._update_mirror]

    @classmethod
    def open(
        cls,
        target: str | os.PathLike[str],
        name: str | None = None,
        *,
        create: bool | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> Self:
        """The ledger of the pod `name` in the database `target`, a path or a SQLAlchemy URL.

        Without `name`, the only ledger there. The database and the ledger are made, and brought up to date, unless
        `create` is false or there is no name. `clock` gives nanoseconds since 1970.

        Entering the context raises:
            LedgerNotFoundError: there is no such database or ledger, or no name where the database holds several.
            SchemaError: the database is of another version of podledger.
            StorageError: the file cannot be opened.
        """
        if name is not None:
            check_name(name, "ledger name")
        wanted = name is not None if create is None else create
        return cls(target, name, create=wanted, busy_timeout_s=busy_timeout_s, clock=clock)

    @property
    def name(self) -> str:
        """The name of the owning pod."""
        return self._name

    @property
    def database(self) -> Database:
        """The open database."""
        if self._database is None:
            raise StorageError("the ledger is not open", hint="use it inside `async with Ledger.open(...)`")
        return self._database

    @property
    def commits(self) -> GroupCommit:
        """Everything that is appended goes through it: also lines from outside, with their senders and rejections.

        Raises:
            StorageError: the ledger is not open.
        """
        if self._commits is None:
            raise StorageError("the ledger is not open", hint="use it inside `async with Ledger.open(...)`")
        return self._commits

    async def __aenter__(self) -> Self:
        self._database = await Database.open(self._target, create=self._create, busy_timeout_s=self._busy_timeout_s)
        try:
            self._name = await self.database.read(self._choose)
            if not self._name:
                self._name = self._wanted or ""
                await self.database.write(self._make)
        except BaseException:
            await self.database.close()
            raise
        self._commits = GroupCommit(self._database, self._name, clock=self._clock, listeners=self._listeners)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.commits.close()
        self._commits = None
        await self._mirror.close()
        await self.database.close()
        self._database = None

    async def append(self, event: LedgerEvent, *, evidence: Evidence | None = None) -> Entry:
        """Append one event; return its entry after the commit.

        Raises:
            StorageError: it was not committed.
        """
        [entry] = await self.commits.append([draft(event, self._name, evidence=evidence)])
        return entry

    async def append_many(self, events: Sequence[LedgerEvent]) -> list[Entry]:
        """Append events in one transaction, all or nothing; return their entries after the commit.

        Raises:
            StorageError: nothing was committed.
        """
        return await self.commits.append([draft(event, self._name) for event in events])

    async def entries(
        self,
        *,
        pod: str | None = None,
        kind: str | None = None,
        outcome: str | None = None,
        since: Moment = None,
        until: Moment = None,
        limit: int | None = None,
        withheld: bool = False,
    ) -> AsyncIterator[Entry]:
        """The entries of the log by seq: from the moment `since` up to and with the moment `until`.

        Of a bundle those alone that it shows, unless `withheld`.

        Raises:
            InvalidMomentError: a moment is not in the log.
        """
        first, last = await self.read(partial(registry.span, ledger=self._name, since=since, until=until))
        selection = Selection(first - 1, last, pod, kind, outcome, whole=self.database.is_bundle and not withheld)
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self.read(partial(log.read_page, ledger=self._name, selection=selection, limit=size))
            for entry in page:
                yield entry
            if len(page) < size:
                return
            left = None if left is None else left - len(page)
            selection = selection._replace(after=page[-1].seq)

    async def rejected(self, *, after: int = 0, limit: int = PAGE) -> list[Rejected]:
        """The lines that were no events, after a number of theirs."""
        return await self.read(partial(log.read_rejected, ledger=self._name, after=after, limit=limit))

    async def head(self) -> Head:
        """The ledger's settings, and where its chains end."""
        return await self.read(partial(log.read_head, ledger=self._name))

    async def pods(self, at: Moment = None, *, closed: bool = False) -> list[Pod]:
        """The registry at a moment (a seq, an aware time, or now), by name; with `closed` also what was over by then.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(registry.pods_at, ledger=self._name, at=at, closed=closed))

    async def holders(self, path: str, at: Moment = None) -> list[Holder]:
        """Who could write `path` at a moment; in a bundle, who of the pods that it shows.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        holders = await self.read(partial(registry.holders_at, ledger=self._name, path=path, at=at))
        what = await self._slice()
        return holders if what is None else [holder for holder in holders if what.is_of(holder.pod_name)]

    async def gaps(self, at: Moment = None) -> list[Gap]:
        """What stamped senders had sent by a moment, as far as what arrived shows, and the ledger had not got.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(gaps_at, ledger=self._name, at=at))

    async def missing(self, at: Moment = None) -> Missing:
        """How many reports were missing at a moment, and of how many senders.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(missing_at, ledger=self._name, at=at))

    async def explain(
        self, pod_name: str, at: Moment = None, *, story: Story | None = None
    ) -> AsyncIterator[Explained]:
        """The life of a pod name up to a moment: each event about it, with what it did and why, in words.

        A `story` of that name can be asked afterwards how the pod stands.

        Raises:
            InvalidMomentError: the moment is not in the log.
            ProtocolError: an entry was altered.
            UsageError: this is a bundle that does not show that pod.
        """
        what = await self._slice()
        if what is not None and not what.folds(pod_name):
            raise UsageError(f"the bundle does not show the pod {pod_name!r}", hint="use the ledger that it is from")
        story = story or Story(pod_name)
        async for entry in self.entries(pod=pod_name, until=at, withheld=True):
            explained = explain(story, entry, fact_of(entry, self._name))
            if entry.payload != WITHHELD:
                yield explained

    async def diff(self, before: Moment, after: Moment = None) -> RegistryDiff:
        """What changed in the registry and the grants between two moments, and by which events.

        Raises:
            InvalidMomentError: a moment is not in the log, or the second is the earlier.
        """
        return await self.read(partial(diff, ledger=self._name, before=before, after=after))

    async def replay(
        self,
        plan: ReplayOptions,
        told: Callable[[ChangedOutcome], None] | None = None,
        progress: Progress | None = None,
    ) -> ReplayResult:
        """What the registry would be, had the events come as `plan` says; nothing is written.

        `told` is called, from another thread, for each event that would be decided otherwise than it was.

        Raises:
            InvalidMomentError: the moment is not in the log.
            ProtocolError: an entry was altered.
            UsageError: this is a bundle, which holds no whole log.
        """
        check_whole(self.database.place)

        def work() -> ReplayResult:
            with read_only(self.database.place) as connection:
                return replay(connection, self._name, plan, told, progress)

        return await asyncio.to_thread(work)

    async def note(self, at: Moment = None) -> Note:
        """The ledger's digest at a moment, to be kept elsewhere and given to `verify` later.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(note_at, ledger=self._name, at=at))

    async def verify(self, progress: Progress | None = None, *, expected: Sequence[Note] = ()) -> VerifyResult:
        """Check the file, the chain, the numbering, the triggers, and the projections against a refold of the log.

        `expected` is what was noted of the log before; where it is otherwise now is a problem too.

        Raises:
            StorageError: the file cannot be read to its end.
        """

        def check() -> VerifyResult:
            with read_only(self.database.place) as connection:
                return verify(connection, self._name, progress, expected)

        return await asyncio.to_thread(check)

    async def rebuild(self, progress: Progress | None = None) -> int:
        """Fold the log anew, aside, and put the projections right; how many of their rows that changed.

        Writing goes on meanwhile; of the pods whose rows differ the log is then folded once more with writing stopped.

        Raises:
            ProtocolError: an entry was altered.
            StorageError: the file cannot be read, or the change was not committed.
        """
        self.database.check_writable()
        try:
            with read_only(self.database.place) as aside:
                names = await asyncio.to_thread(differing, aside, self._name, progress)
                aside.commit()
                work = partial(put_right, aside=aside, ledger=self._name, names=names)
                changes = await self.database.write(work)
        except (TypeError, ValueError) as error:  # a value of another type stands where the log or a projection has one
            raise DamagedError(f"{self.database.path} is damaged: {error}", hint=DAMAGED_HINT) from error
        if changes:
            self._mirror.changed()
        return changes

    async def bundle(
        self,
        target: str | os.PathLike[str],
        wanted: BundleRequest,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> BundleResult:
        """Write a slice of the ledger into the file `target`, to be carried elsewhere, read and checked there.

        Raises:
            InvalidMomentError: a moment is not in the log.
            StorageError: the file was not written: without `overwrite`, also where one is there already.
            UsageError: there is nothing to put in, or this is a bundle itself.
        """
        make = partial(make_bundle, now_us=self._clock() // 1000, overwrite=overwrite, progress=progress)
        return await asyncio.to_thread(make, self.database.place, self._name, target, wanted)

    async def notifications(
        self, consumer: str = DEFAULT_CONSUMER, *, after: int = 0, limit: int = PAGE
    ) -> list[Notification]:
        """What the agent should be told, after the consumer's cursor and after the seq `after`, at most `limit`."""
        check_name(consumer, "consumer")
        work = partial(notifications.unread, ledger=self._name, consumer=consumer, after=after, limit=limit)
        return await self.read(work)

    async def acknowledge(self, seq: int, consumer: str = DEFAULT_CONSUMER) -> None:
        """Move the consumer's cursor on to `seq`, never back.

        Raises:
            InvalidMomentError: the log does not reach that far.
        """
        check_name(consumer, "consumer")
        now_us = self._clock() // 1000
        work = partial(notifications.acknowledge, ledger=self._name, consumer=consumer, seq=seq, now_us=now_us)
        await self.database.write(work)

    async def configure(self, *, parent_socket: str | None = None, mirror: str | None = None) -> Head:
        """Set where the owner's parent listens, and where the mirror is written; what is None stays, "" clears.

        Raises:
            StorageError: the mirror would be the database itself, or nothing was committed.
        """
        if mirror:
            check_apart(Path(mirror), self.database.place)
        work = partial(log.configure, ledger=self._name, parent_socket=parent_socket, mirror=mirror)
        return await self.database.write(work)

    async def write_mirror(self) -> None:
        """Write the mirror now, if one is set; it is written by itself after each change of the registry."""
        await self._mirror.write()

    async def outbox_items(self, *, status: OutboxStatus | None = None, after: int = 0) -> list[OutboxItem]:
        """What the ledger owes, or owed, its parent."""
        return await self.read(partial(outbox_rows.read_outbox, ledger=self._name, status=status, after=after))

    async def update_outbox_item(self, item: OutboxItem) -> None:
        """Keep what became of an item."""
        await self.database.write(partial(outbox_rows.write_outbox_item, item=item))

    async def _slice(self) -> BundleScope | None:
        """What the bundle shows, if this is one and it does not show all."""
        found = await self.read(read_bundle) if self.database.is_bundle else None
        return None if found is None or found.what.pods is None else found.what

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the database."""
        return await self.database.read(work)

    def on_commit(self, listener: Callable[[Appended], None]) -> None:
        """Have `listener` called after each commit of this object, on the event loop."""
        self._listeners.append(listener)

    def _choose(self, connection: Connection) -> str:
        """The name of the ledger to open, empty if it is to be made."""
        names = log.ledger_names(connection)
        if self._wanted in names:
            return str(self._wanted)
        if self._wanted is not None and self._create:
            return ""
        if self._wanted is None and len(names) == 1:
            return names[0]
        reason = f"no ledger {self._wanted!r} is in it" if self._wanted else f"it holds {len(names)} ledgers"
        known = ", ".join(map(str, names))
        hint = f"choose one of: {known}" if known else "make one with `podledger init NAME`"
        raise LedgerNotFoundError(f"{self.database.path}: {reason}", hint=hint)

    def _make(self, connection: Connection) -> None:
        log.make_ledger(connection, self._name, self._clock() // 1000)

    async def _mirrored(self) -> tuple[str | None, list[Pod], Path]:
        path = (await self.head()).mirror
        return path, await self.pods() if path else [], self.database.place

    def _update_mirror(self, appended: Appended) -> None:
        if appended.head.mirror and appended.registry_changed:
            self._mirror.changed()
