"""`Ledger`: the class through which you open, read and write a pod's record."""

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

from podledger.bundle.request import BundleRequest
from podledger.bundle.write import BundleResult, make_bundle
from podledger.client.spawning import PreparedSpawn, prepare_spawn
from podledger.core.digest import NO_PAYLOAD
from podledger.core.entries import Entry, draft
from podledger.core.errors import DAMAGED_HINT, DamagedError, LedgerNotFoundError, StorageError
from podledger.core.events import Evidence, LedgerEvent
from podledger.core.fields import Scope
from podledger.core.names import check_name
from podledger.core.progress import Progress
from podledger.core.rules import fact_of
from podledger.core.stamps import Stamper
from podledger.host.facts import absolute, stated
from podledger.integrity.coverage import coverage_of
from podledger.integrity.notes import Note, note_at
from podledger.integrity.verify import VerifyResult, verify
from podledger.mirror import Mirror
from podledger.queries import notifications
from podledger.queries.diff import RegistryDiff, diff
from podledger.queries.explain import Explained, PodHistory
from podledger.queries.gaps import Answer, Gap, Missing, gaps_at, missing_at
from podledger.queries.holders import Holder, holders_at
from podledger.queries.moments import Moment, span
from podledger.queries.notifications import DEFAULT_CONSUMER, Notification
from podledger.queries.registry import Pod, newest_incarnation, pods_at
from podledger.queries.replay import ChangedOutcome, ReplayOptions, ReplayResult, replay
from podledger.store import log, outbox_rows
from podledger.store.append import Appended
from podledger.store.connections import BUSY_TIMEOUT_S
from podledger.store.coverage import check_projected, check_whole
from podledger.store.database import Database
from podledger.store.files import check_apart
from podledger.store.group_commit import GroupCommit
from podledger.store.log import Head, Rejected, Selection
from podledger.store.outbox_rows import OutboxItem, OutboxStatus
from podledger.store.rebuild import correct_rows, differing

PAGE: Final = 1_000
T = TypeVar("T")


class Ledger:
    """The record of one owning pod: an append-only log, and its projections.

    Use it as an asynchronous context manager, made by `Ledger.open`. Calls may overlap: events that you append at
    the same time are committed together. All times it gives are UTC.
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

        Without `name`, it is the only ledger there. The database and the ledger are created, or upgraded, unless
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
        """The group commit, through which every append goes: also received lines, with their senders and rejections.

        Raises:
            StorageError: the ledger is not open.
        """
        if self._commits is None:
            raise StorageError("the ledger is not open", hint="use it inside `async with Ledger.open(...)`")
        return self._commits

    async def __aenter__(self) -> Self:
        self._database = await Database.open(
            self._target, coverage_of, create=self._create, busy_timeout_s=self._busy_timeout_s
        )
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

    async def prepare_spawn(
        self,
        pod_name: str,
        parent_socket: str | os.PathLike[str],
        *,
        socket_path: str = "",
        scope: Scope = (),
        spool: str | os.PathLike[str] | None = None,
        stamper: Stamper | None = None,
    ) -> PreparedSpawn:
        """Prepare to spawn a pod that reports to `parent_socket`, as `prepare_spawn` does.

        The incarnation is greater than the newest that the ledger knows of this name, whatever the clock says.
        """
        newest = await self.read(partial(newest_incarnation, ledger=self._name, pod_name=pod_name))
        return prepare_spawn(
            pod_name, parent_socket, socket_path=socket_path, scope=scope, spool=spool, stamper=stamper, after=newest
        )

    async def append(self, event: LedgerEvent, *, evidence: Evidence | None = None) -> Entry:
        """Append one event; return its entry after the commit.

        In a `PodSpawned`, relative paths are made absolute, and the start of its process is added.

        Raises:
            InvalidEventError: a path is relative, and the current folder has no name.
            StorageError: it was not committed.
        """
        [entry] = await self.commits.append([draft(stated(event), self._name, evidence=evidence)])
        return entry

    async def append_many(self, events: Sequence[LedgerEvent]) -> list[Entry]:
        """Append events in one transaction, all or nothing, each as `append` does; return their entries.

        Raises:
            InvalidEventError: a path is relative, and the current folder has no name.
            StorageError: nothing was committed.
        """
        return await self.commits.append([draft(stated(event), self._name) for event in events])

    async def entries(
        self,
        *,
        pod: str | None = None,
        kind: str | None = None,
        outcome: str | None = None,
        since: Moment = None,
        until: Moment = None,
        limit: int | None = None,
        blank: bool = False,
    ) -> AsyncIterator[Entry]:
        """Yield the entries of the log by seq, from the moment `since` to the moment `until`, both included.

        Entries whose payload the database does not hold are left out, unless `blank`.

        Raises:
            InvalidMomentError: a moment is not in the log.
        """
        first, last = await self.read(partial(span, ledger=self._name, since=since, until=until))
        selection = Selection(first - 1, last, pod, kind, outcome, whole=not (blank or self.database.coverage.is_whole))
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = await self.read(partial(log.read_page, ledger=self._name, selection=selection, limit=size))
            if not page:
                return
            for entry in page:
                yield entry
            left = None if left is None else left - len(page)
            selection = selection._replace(after=page[-1].seq)

    async def rejected(self, *, after: int = 0, limit: int = PAGE) -> list[Rejected]:
        """Return the rejected lines after one number: at most `limit`, fewer if they are large, `[]` at their end."""
        return await self.read(partial(log.read_rejected, ledger=self._name, after=after, limit=limit))

    async def head(self) -> Head:
        """Return the ledger's settings, and where its chains end."""
        return await self.read(partial(log.read_head, ledger=self._name))

    async def pods(self, at: Moment = None, *, closed: bool = False) -> list[Pod]:
        """Return the registry at a moment (a seq, an aware time, or now), by name.

        `closed` adds the tenures that had ended by then.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(pods_at, ledger=self._name, at=at, closed=closed))

    async def holders(self, path: str, at: Moment = None) -> list[Holder]:
        """Return the pods that could write `path` at a moment, among those that the database shows.

        A relative path is looked up in the current folder.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(self._holders, path=path, at=at))

    async def holders_with_missing(self, path: str, at: Moment = None) -> Answer[list[Holder]]:
        """Return `holders`, and how many reports were missing at that moment, from one snapshot.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read_with_missing(partial(self._holders, path=path, at=at), at)

    def _holders(self, connection: Connection, path: str, at: Moment) -> list[Holder]:
        holders = holders_at(connection, self._name, absolute(path), at)
        return [holder for holder in holders if self.database.coverage.covers(holder.pod_name)]

    async def gaps(self, at: Moment = None) -> list[Gap]:
        """Return the gaps at a moment: the sequence numbers of stamped senders whose reports had not arrived.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(gaps_at, ledger=self._name, at=at))

    async def missing(self, at: Moment = None) -> Missing:
        """Count the reports that were missing at a moment, and their senders.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(missing_at, ledger=self._name, at=at))

    async def explain(
        self, pod_name: str, at: Moment = None, *, history: PodHistory | None = None
    ) -> AsyncIterator[Explained]:
        """Yield each event about a pod name up to a moment, with its outcome and the reason in words.

        Pass a `history` of that name to read the pod's status from it afterwards.

        Raises:
            InvalidMomentError: the moment is not in the log.
            ProtocolError: an entry was altered.
            UsageError: the database does not show that pod.
        """
        check_projected(self.database.path, self.database.coverage, pod_name)
        history = history or PodHistory(pod_name)
        async for entry in self.entries(pod=pod_name, until=at, blank=True):
            explained = history.explain(entry, fact_of(entry, self._name))
            if entry.payload != NO_PAYLOAD:
                yield explained

    async def diff(self, before: Moment, after: Moment = None) -> RegistryDiff:
        """Return the changes of the registry and the grants between two moments, and the events that made them.

        Raises:
            InvalidMomentError: a moment is not in the log, or the second is the earlier.
        """
        return await self.read(partial(diff, ledger=self._name, before=before, after=after))

    async def replay(
        self,
        plan: ReplayOptions,
        on_result: Callable[[ChangedOutcome], None] | None = None,
        progress: Progress | None = None,
    ) -> ReplayResult:
        """Return the registry as it would be if the events had come as `plan` says; this writes nothing.

        `on_result` is called, on another thread, with each event whose outcome would change.

        Raises:
            InvalidMomentError: the moment is not in the log.
            ProtocolError: an entry was altered.
            UsageError: the database does not hold the whole log.
        """
        check_whole(self.database.path, self.database.coverage)
        work = partial(replay, ledger=self._name, plan=plan, on_result=on_result, progress=progress)
        return await self.database.run_job(work)

    async def note(self, at: Moment = None) -> Note:
        """Return the ledger's digest at a moment, to keep elsewhere and give to `verify` later.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """
        return await self.read(partial(note_at, ledger=self._name, at=at))

    async def verify(self, progress: Progress | None = None, *, expected: Sequence[Note] = ()) -> VerifyResult:
        """Check the file, the chain, the numbering and the triggers, and compare the projections with the log.

        `expected` are digests that were noted before; each that is different now is a problem too.

        Raises:
            StorageError: the file cannot be read to its end.
        """
        work = partial(verify, ledger=self._name, progress=progress, expected=expected)
        return await self.database.run_job(work)

    async def rebuild(self, progress: Progress | None = None) -> int:
        """Derive the projections from the log again, and correct them; return how many rows that changed.

        Other callers can append during this. The pods whose rows differ are then read once more with appending stopped.

        Raises:
            ProtocolError: an entry was altered.
            StorageError: the file cannot be read, or the change was not committed.
        """
        self.database.check_writable()
        try:
            with self.database.snapshot() as snapshot:
                names = await asyncio.to_thread(differing, snapshot, self._name, progress)
                snapshot.commit()
                work = partial(correct_rows, snapshot=snapshot, ledger=self._name, names=names)
                changes = await self.database.write(work)
        except (TypeError, ValueError) as error:  # a value has another type than its column
            raise DamagedError(f"{self.database.path} is damaged: {error}", hint=DAMAGED_HINT) from error
        if changes:
            self._mirror.changed()
        return changes

    async def bundle(
        self,
        target: str | os.PathLike[str],
        request: BundleRequest,
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> BundleResult:
        """Write a part of the ledger into the file `target`, to read and verify elsewhere.

        Raises:
            InvalidMomentError: a moment is not in the log.
            StorageError: the file cannot be written, or exists and `overwrite` is false.
            UsageError: there are no entries to write, or this database does not hold the whole log.
        """
        check_whole(self.database.path, self.database.coverage)
        make = partial(make_bundle, now_us=self._clock() // 1000, overwrite=overwrite, progress=progress)
        return await asyncio.to_thread(make, self.database.place, self._name, target, request)

    async def notifications(
        self, consumer: str = DEFAULT_CONSUMER, *, after: int = 0, limit: int = PAGE
    ) -> list[Notification]:
        """Return unread notifications after the consumer's cursor and the seq `after`.

        They are at most `limit`, and fewer if they are large; `[]` at their end.
        """
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
        """Set where the owner's parent listens, and where the mirror is written; None keeps a setting, "" clears it.

        Raises:
            StorageError: the mirror would be the database itself, or nothing was committed.
        """
        if mirror:
            check_apart(Path(mirror), self.database.place)
        work = partial(log.configure, ledger=self._name, parent_socket=parent_socket, mirror=mirror)
        return await self.database.write(work)

    async def write_mirror(self) -> None:
        """Write the mirror now, if one is set; the ledger also writes it after each change of the registry."""
        await self._mirror.write()

    async def outbox_items(
        self, *, status: OutboxStatus | None = None, socket: str | None = None, after: int = 0
    ) -> list[OutboxItem]:
        """Return a page of the reports to the parent, after the number `after`; only those for `socket`, if given."""
        work = partial(outbox_rows.read_outbox, ledger=self._name, status=status, socket=socket, after=after)
        return await self.read(work)

    async def outbox_sockets(self) -> list[str]:
        """Return the sockets for which reports are pending, that of the oldest report first."""
        return await self.read(partial(outbox_rows.pending_sockets, ledger=self._name))

    async def discard_outbox_items(self, numbers: Sequence[int]) -> None:
        """Discard reports to the parent that are pending or refused, all or none: the parent will never get them.

        Raises:
            UsageError: one of them is neither pending nor refused.
        """
        work = partial(outbox_rows.discard_items, ledger=self._name, numbers=numbers, now_us=self._clock() // 1000)
        await self.database.write(work)

    async def count_outbox_items(self, *, status: OutboxStatus) -> int:
        """Return how many outbox items have `status`."""
        return await self.read(partial(outbox_rows.count_outbox, ledger=self._name, status=status))

    async def keep_outbox_attempts(self, items: Sequence[OutboxItem]) -> list[OutboxItem]:
        """Store the stamps or the last attempts of items, and return them as they are stored."""
        return await self.database.write(partial(outbox_rows.keep_attempts, items=items))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the database."""
        return await self.database.read(work)

    async def read_with_missing(self, work: Callable[[Connection], T], at: Moment = None) -> Answer[T]:
        """Run `work`, and count the reports that were missing at a moment, on one snapshot of the database.

        Raises:
            InvalidMomentError: the moment is not in the log.
        """

        def answer(connection: Connection) -> Answer[T]:
            return Answer(work(connection), missing_at(connection, self._name, at))

        return await self.read(answer)

    def on_commit(self, listener: Callable[[Appended], None]) -> Callable[[], None]:
        """Call `listener` on the event loop after each commit of this object; return a function that stops this."""
        self._listeners.append(listener)
        return partial(self._listeners.remove, listener)

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
        hint = f"choose one with --ledger: {known}" if known else "make one with `podledger init NAME`"
        raise LedgerNotFoundError(f"{self.database.path}: {reason}", hint=hint)

    def _make(self, connection: Connection) -> None:
        log.make_ledger(connection, self._name, self._clock() // 1000)

    async def _mirrored(self) -> tuple[str | None, list[Pod], Path]:
        path = (await self.head()).mirror
        return path, await self.pods() if path else [], self.database.place

    def _update_mirror(self, appended: Appended) -> None:
        if appended.head.mirror and appended.registry_changed:
            self._mirror.changed()
