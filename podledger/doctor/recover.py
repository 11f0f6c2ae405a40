"""What a damaged ledger still proves, written into a new one.

Up to the first loss entries keep their seq, time and digest. After it the log's numbers cannot go on without a gap, so
those whose chain still holds are recorded anew, in their order and with their times. What can be read and proves
nothing goes to the new ledger's rejected lines, as everything does that is no event.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from podledger.core import strict_json
from podledger.core.errors import DamagedError, LedgerNotFoundError, PodledgerError, ProtocolError, StorageError
from podledger.core.events import Draft, Entry, Sender, draft
from podledger.core.protocol import timestamp
from podledger.integrity.scan import UNREADABLE, Loss, ScannedEntry, losses, scan, scanned_ledgers
from podledger.ledger import Ledger
from podledger.store.connections import read_only
from podledger.store.log import Rejected, Rejection, read_head, read_rejected
from podledger.store.schema import check_whole

BATCH: Final = 1_000
REJECTED_BATCH: Final = 100


class Recovered(NamedTuple):
    """What became of one ledger: entries kept as they were, entries recorded anew, and the runs that are lost.

    `moved` tells of each run that was recorded anew its first and last seq, and the first that it has now.
    """

    ledger: str
    kept: int
    recorded_anew: int
    moved: tuple[tuple[int, int, int], ...]
    lost: tuple[Loss, ...]

    def as_json(self) -> dict[str, Any]:
        """The result as `recover --json` prints it."""
        moved = [{"first": first, "last": last, "now": now} for first, last, now in self.moved]
        return self._asdict() | {"moved": moved, "lost": [loss._asdict() for loss in self.lost]}


class _Clock:
    """The time at which an entry was recorded first, for when it is recorded anew."""

    def __init__(self) -> None:
        self.now_us = 0

    def __call__(self) -> int:
        return self.now_us * 1000


async def recover(source: Path, target: Path, ledger: str | None = None) -> list[Recovered]:
    """Write what still holds of the ledgers in `source`, or of the one named, into a new database at `target`.

    Raises:
        LedgerNotFoundError: there is no such file or ledger.
        DamagedError: nothing of it can be read.
        StorageError: there is a file at `target` already, or it cannot be written.
    """
    _check_paths(source, target)
    with read_only(source) as connection:
        names = scanned_ledgers(connection)
        if not names:
            raise DamagedError(f"no ledger can be made out in {source}", hint="restore a backup")
        if ledger is not None and ledger not in names:
            raise LedgerNotFoundError(f"there is no ledger {ledger!r} in it", hint=f"known: {', '.join(names)}")
        return [await _salvage(connection, target, name) for name in names if ledger in (None, name)]


def _check_paths(source: Path, target: Path) -> None:
    if not source.is_file():
        raise LedgerNotFoundError(f"there is no file at {source}", hint="give the damaged database")
    check_whole(source)
    if os.path.lexists(target):
        raise StorageError(f"{target} exists already", hint="give the path of a file that does not")


async def _salvage(connection: Connection, target: Path, name: str) -> Recovered:
    clock = _Clock()
    async with Ledger.open(target, name, clock=clock) as into:
        kept = await _keep(into, scan(connection, name))
        moved: list[tuple[int, int, int]] = []
        lost = list(losses(standing for standing in scan(connection, name)))
        rest = (standing for standing in scan(connection, name) if standing.seq > kept)
        for same_time in _held_runs(rest):
            clock.now_us = same_time[0].recorded_us
            moved.append(await _record_anew(into, same_time))
        await _carry_rejected(into, connection, (standing for standing in scan(connection, name) if standing.fault))
        await _carry_settings(into, connection)
    return Recovered(name, kept, sum(last - first + 1 for first, last, _ in moved), tuple(_joined(moved)), tuple(lost))


async def _keep(into: Ledger, standings: Iterator[ScannedEntry]) -> int:
    """Restore the entries up to the first loss, as they are; how many those are."""
    kept = 0
    batch: list[Entry] = []
    for standing in standings:
        if standing.fault or standing.entry is None:
            break
        batch.append(standing.entry)
        if len(batch) == BATCH:
            refused = await into.commits.restore(batch)
            kept += len(batch) - len(refused)
            batch = []
            if refused:
                return kept
    refused = await into.commits.restore(batch)
    return kept + len(batch) - len(refused)


def _held_runs(standings: Iterator[ScannedEntry]) -> Iterator[list[Entry]]:
    """Entries that hold and follow each other, a list for those that were recorded at one time."""
    held = (standing.entry for standing in standings if not standing.fault and standing.entry is not None)
    numbered = enumerate(held)
    for _, run in groupby(numbered, key=lambda item: (item[1].seq - item[0], item[1].recorded_us)):
        entries = [entry for _, entry in run]
        for start in range(0, len(entries), BATCH):
            yield entries[start : start + BATCH]


async def _record_anew(into: Ledger, entries: Sequence[Entry]) -> tuple[int, int, int]:
    recorded = await into.commits.append([_draft(entry) for entry in entries])
    return entries[0].seq, entries[-1].seq, recorded[0].seq


def _draft(entry: Entry) -> Draft:
    """The event of an entry, on its way into another log.

    Raises:
        DamagedError: it is no event, whatever its digest says.
    """
    try:
        event = entry.event
    except ProtocolError as error:
        raise DamagedError(f"seq {entry.seq}: {error.message}", hint="recover up to the seq before it") from error
    return draft(event, entry.ledger, payload=entry.payload, sender=entry.sender, evidence=entry.evidence)


def _joined(moved: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Runs that follow each other, old numbers and new, as one."""
    for _, same in groupby(enumerate(moved), key=lambda item: item[1][2] - item[1][0]):
        runs = [run for _, run in same]
        yield runs[0][0], runs[-1][1], runs[0][2]


async def _carry_rejected(into: Ledger, connection: Connection, faulty: Iterator[ScannedEntry]) -> None:
    """The old ledger's rejected lines that can be read, and the entries that prove nothing."""
    batch: list[Rejection] = []
    for rejection in chain(_old_rejections(connection, into.name), _unproven(faulty)):
        batch.append(rejection)
        if len(batch) == REJECTED_BATCH:
            await into.commits.append([], batch)
            batch = []
    await into.commits.append([], batch)


def _old_rejections(connection: Connection, name: str) -> Iterator[Rejection]:
    for row in _rejected(connection, name):
        sender = None if row.pid is None else Sender(row.pid, row.uid or 0, row.gid or 0)
        yield Rejection(row.raw, f"{row.reason} (first recorded at {timestamp(row.recorded_us)})", sender)


def _unproven(faulty: Iterator[ScannedEntry]) -> Iterator[Rejection]:
    for seq, entry, fault in faulty:
        if entry is not None:
            raw = strict_json.dumps(entry._asdict()).encode(errors="replace")
            yield Rejection(raw, f"seq {seq} of the damaged ledger: {fault}", None)


def _rejected(connection: Connection, name: str) -> Iterator[Rejected]:
    """The rejected lines that can be read."""
    after, misses = 0, 0
    while misses < BATCH:
        try:
            page = read_rejected(connection, name, after=after, limit=1)
        except UNREADABLE:
            after, misses = after + 1, misses + 1
            continue
        if not page:
            return
        after = page[0].number
        if isinstance(page[0].raw, bytes) and isinstance(page[0].reason, str):
            yield page[0]


async def _carry_settings(into: Ledger, connection: Connection) -> None:
    try:
        head = read_head(connection, into.name)
        if head.with_checksum() == head:
            await into.configure(parent_socket=head.parent_socket, mirror=head.mirror)
    except (PodledgerError, *UNREADABLE):
        return
