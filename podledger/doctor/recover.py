"""Recover the entries of a damaged ledger whose chain still holds into a new database.

Up to the first loss, entries keep their seq, time and digest. After it the numbers cannot continue without a gap, so
the entries whose chain still holds are appended under new numbers, in their order and with their times. Entries that
can be read but prove nothing become rejected lines of the new ledger.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from podledger.core import strict_json
from podledger.core.entries import Draft, Entry, Sender, draft
from podledger.core.errors import DamagedError, LedgerNotFoundError, PodledgerError, ProtocolError, StorageError
from podledger.core.times import timestamp
from podledger.integrity.coverage import coverage_of
from podledger.integrity.scan import UNREADABLE, Loss, ScannedEntry, losses, scan, scanned_ledgers
from podledger.ledger import Ledger
from podledger.store.connections import read_only
from podledger.store.coverage import check_whole
from podledger.store.driver import batches
from podledger.store.files import placing
from podledger.store.log import Rejected, Rejection, read_head, read_rejected

BATCH: Final = 1_000
REJECTED_BATCH: Final = 100


class Recovered(NamedTuple):
    """The result for one ledger: unchanged entries, entries with new numbers, and lost runs.

    `moved` holds the first and last seq of each run with new numbers, and the first seq that it has now.
    """

    ledger: str
    kept: int
    recorded_anew: int
    moved: tuple[tuple[int, int, int], ...]
    lost: tuple[Loss, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the result as `recover --json` prints it."""
        moved = [{"first": first, "last": last, "now": now} for first, last, now in self.moved]
        return self._asdict() | {"moved": moved, "lost": [loss._asdict() for loss in self.lost]}


class _Clock:
    """A clock that returns the time at which an entry was first recorded."""

    def __init__(self) -> None:
        self.now_us = 0

    def __call__(self) -> int:
        return self.now_us * 1000


async def recover(source: Path, target: Path, ledger: str | None = None) -> list[Recovered]:
    """Write the intact entries of the ledgers in `source`, or of the one named, into a new database at `target`.

    If the recovery fails, nothing is left at `target`.

    Raises:
        DamagedError: no ledger of the file can be read.
        LedgerNotFoundError: there is no such file or ledger.
        StorageError: a file exists at `target`, or it cannot be written.
        UsageError: the file holds no whole log.
    """
    _check_paths(source, target)
    with read_only(source) as connection:
        names = scanned_ledgers(connection)
        if not names:
            raise DamagedError(f"no ledger can be read in {source}", hint="restore a backup")
        if ledger is not None and ledger not in names:
            raise LedgerNotFoundError(
                f"there is no ledger {ledger!r} in {source}", hint=f"choose one with --ledger: {', '.join(names)}"
            )
        with placing(target, source, overwrite=False) as temporary:
            return [await _recover(connection, temporary, name) for name in names if ledger in (None, name)]


def _check_paths(source: Path, target: Path) -> None:
    if not source.is_file():
        raise LedgerNotFoundError(f"there is no file at {source}", hint="give the path of the damaged database")
    check_whole(source, coverage_of(source))
    if os.path.lexists(target):
        raise StorageError(f"{target} exists already", hint="give the path of a new file")


async def _recover(connection: Connection, target: Path, name: str) -> Recovered:
    clock = _Clock()
    async with Ledger.open(target, name, clock=clock) as into:
        kept = await _keep(into, _scan_events(connection, name))
        moved: list[tuple[int, int, int]] = []
        lost = tuple(losses(_scan_events(connection, name)))
        rest = (scanned for scanned in _scan_events(connection, name) if scanned.seq > kept)
        for entries in _runs_of_one_time(rest):
            clock.now_us = entries[0].recorded_us
            moved.append(await _append(into, entries))
        await _copy_rejected(into, connection, _scan_events(connection, name))
        await _copy_settings(into, connection)
    return Recovered(name, kept, sum(last - first + 1 for first, last, _ in moved), tuple(_joined(moved)), lost)


def _scan_events(connection: Connection, name: str) -> Iterator[ScannedEntry]:
    """Yield the scanned log; an entry whose payload is not an event counts as faulty, since no ledger accepts it."""
    for scanned in scan(connection, name):
        if scanned.entry is not None and not scanned.fault:
            try:
                _ = scanned.entry.event
            except ProtocolError as error:
                yield scanned._replace(fault=f"its payload is not an event: {error.message}")
                continue
        yield scanned


async def _keep(into: Ledger, scan: Iterator[ScannedEntry]) -> int:
    """Restore the entries before the first loss as they are; return how many."""
    kept = 0
    intact = takewhile(lambda scanned: not scanned.fault, scan)
    for batch in batches((scanned.entry for scanned in intact if scanned.entry is not None), BATCH):
        refused = await into.commits.restore(batch)
        kept += len(batch) - len(refused)
        if refused:
            break
    return kept


def _runs_of_one_time(scan: Iterator[ScannedEntry]) -> Iterator[list[Entry]]:
    """Yield the entries that hold, in runs without a gap that were recorded at one time."""
    entries = (scanned.entry for scanned in scan if not scanned.fault and scanned.entry is not None)
    for _, run in groupby(enumerate(entries), key=lambda item: (item[1].seq - item[0], item[1].recorded_us)):
        yield from batches((entry for _, entry in run), BATCH)


async def _append(into: Ledger, entries: Sequence[Entry]) -> tuple[int, int, int]:
    """Append entries under new numbers; return their first and last seq, and the first that they have now."""
    appended = await into.commits.append([_draft(entry) for entry in entries])
    return entries[0].seq, entries[-1].seq, appended[0].seq


def _draft(entry: Entry) -> Draft:
    return draft(entry.event, entry.ledger, payload=entry.payload, sender=entry.sender, evidence=entry.evidence)


def _joined(moved: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield the runs, joined where both their old and their new numbers follow each other."""
    for _, same in groupby(moved, key=lambda run: run[2] - run[0]):
        runs = list(same)
        yield runs[0][0], runs[-1][1], runs[0][2]


async def _copy_rejected(into: Ledger, connection: Connection, scan: Iterator[ScannedEntry]) -> None:
    """Copy the rejected lines that can be read, and append the faulty entries to them."""
    for batch in batches(chain(_old_rejections(connection, into.name), _faulty_entries(scan)), REJECTED_BATCH):
        await into.commits.append([], batch)


def _old_rejections(connection: Connection, name: str) -> Iterator[Rejection]:
    for row in _readable_rejected(connection, name):
        sender = None if row.uid is None else Sender(row.pid, row.uid, row.gid or 0)
        yield Rejection(row.raw, f"{row.reason} (first recorded at {timestamp(row.recorded_us)})", sender)


def _faulty_entries(scan: Iterator[ScannedEntry]) -> Iterator[Rejection]:
    for seq, entry, fault in scan:
        if fault and entry is not None:
            raw = strict_json.dumps(entry._asdict()).encode(errors="replace")
            yield Rejection(raw, f"seq {seq} of the damaged ledger: {fault}", None)


def _readable_rejected(connection: Connection, name: str) -> Iterator[Rejected]:
    """Yield the rejected lines that can be read, one at a time; give up after a long unreadable stretch."""
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


async def _copy_settings(into: Ledger, connection: Connection) -> None:
    """Copy the parent's socket and the mirror if the damaged ledger's row can be read and was not changed."""
    try:
        head = read_head(connection, into.name)
        if head.with_checksum() == head:
            await into.configure(parent_socket=head.parent_socket, mirror=head.mirror)
    except (PodledgerError, *UNREADABLE):
        return
