"""Bring the ledgers of a whole tree together in one database, each under its own name.

A ledger that contradicts the relays in the others is refused.

A collection holds the record: the events with their seq, time and digest, and the rejected lines. It does not copy
the parent's socket, the mirror, the outbox and the consumers, so that nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from podledger.archive.divergence import check_no_divergence
from podledger.core.entries import Entry
from podledger.core.errors import ChainError, UsageError
from podledger.core.progress import Progress
from podledger.integrity.coverage import coverage_of
from podledger.integrity.tree import copies_in
from podledger.integrity.witnesses import Copy, Misfit, compare_witnesses
from podledger.store import append, log
from podledger.store.coverage import check_whole
from podledger.store.database import Database, locate
from podledger.store.driver import insert_rows
from podledger.store.log import Rejected, Selection
from podledger.store.projections import StateCache
from podledger.store.schema import prepare
from podledger.store.tables import rejected


class Collected(NamedTuple):
    """The copy of one ledger: how many entries and rejected lines are new, and the seq of the last entry.

    `problem` says why the source was refused, or that it is shorter than the ledger that was there; else it is empty.
    """

    ledger: str
    source: str
    events: int
    rejected: int
    head_seq: int
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the ledger as `collect --json` prints it."""
        return {name: value for name, value in self._asdict().items() if name != "problem" or value}


async def collect(
    sources: Sequence[str | os.PathLike[str]], into: str | os.PathLike[str], progress: Progress | None = None
) -> list[Collected]:
    """Copy the ledgers of the databases `sources` into the database `into`, which is created if there is none.

    A ledger that is already there is continued, or left as it is if it is the longer one. All ledgers are compared
    before the first is written. One that does not fit the relays in the others is not written, and the result says so.
    After an interruption, the next call continues where this one stopped.

    Raises:
        ChainError: two ledgers of one name diverge, or one breaks its own chain.
        LedgerNotFoundError: one of the databases does not exist.
        UsageError: one of them is `into` itself, or holds no whole log.
        SchemaError: one of them is of another version of podledger.
        StorageError: one cannot be read, or `into` cannot be written.
    """
    paths = [_checked(source) for source in sources]
    for path in paths:
        if locate(into).exists() and path.samefile(locate(into)):
            raise UsageError(f"{path} is both a source and the target", hint="give another database as --into")
    target = await Database.open(into, coverage_of, create=True)
    try:
        with ExitStack() as stack:
            parents = [copy for path in paths for copy in copies_in(path, stack)]
            copies = [copy for path in paths for copy in copies_in(path, stack)]
            known, refused = await asyncio.to_thread(_compare, target.path, parents, copies)
            return [
                await _take(target, copy, known, progress)
                if copy.head.name not in refused
                else _refuse(copy, known, refused[copy.head.name])
                for copy in copies
            ]
    finally:
        await target.close()


def _checked(source: str | os.PathLike[str]) -> Path:
    path = locate(source)
    check_whole(path, coverage_of(path))
    prepare(path, create=False)
    return path


def _compare(
    target: Path, parents: Sequence[Copy], copies: Sequence[Copy]
) -> tuple[Mapping[str, int], Mapping[str, Misfit]]:
    """Check that no two ledgers of one name diverge, in the collection or in the sources.

    Returns the last seq of each ledger in the collection, and by name the ledgers that do not fit the relays in
    `parents`, the sources as they were before `copies`, or in the collection.
    """
    with ExitStack() as stack:
        collected = copies_in(target, stack)
        for one, other in combinations([*collected, *copies], 2):
            if one.head.name == other.head.name:
                check_no_divergence(one, other)
        misfits = compare_witnesses([*collected, *parents], [*collected, *copies]).misfits
    # Sorted by seq, so that of several the first is kept.
    return {copy.head.name: copy.head.head_seq for copy in collected}, {each.ledger: each for each in reversed(misfits)}


def _refuse(copy: Copy, known: Mapping[str, int], misfit: Misfit) -> Collected:
    problem = f"refused: {misfit} (compare the databases with `podledger verify --tree`)"
    return Collected(copy.head.name, copy.place, 0, 0, known.get(copy.head.name, 0), problem)


async def _take(target: Database, copy: Copy, known: Mapping[str, int], progress: Progress | None) -> Collected:
    """Copy the entries of one ledger that the collection does not have yet, a page in each transaction."""
    _, here, head = copy
    before = await target.write(partial(log.make_ledger, name=head.name, now_us=head.created_us))
    after, cache = before.head_seq, StateCache()
    while page := await asyncio.to_thread(log.read_page, here, head.name, Selection(after, head.head_seq)):
        await target.write(partial(_restore, ledger=head.name, cache=cache, entries=page))
        after = page[-1].seq
        if progress:
            progress(after, head.head_seq)
    lines = await _take_rejected(target, copy, before.rejected_count)
    had = known.get(head.name, 0)
    shorter = f"{had} entries here, {head.head_seq} in the source" if head.head_seq < had else ""
    return Collected(head.name, copy.place, after - before.head_seq, lines, after, shorter)


def _restore(connection: Connection, ledger: str, cache: StateCache, entries: Sequence[Entry]) -> None:
    _, refused = append.restore_batch(connection, ledger, cache, entries)
    for position, reason in refused:
        what = f"seq {entries[position].seq} of the ledger {ledger!r} was refused: {reason}"
        raise ChainError(what, hint=_VERIFY_SOURCE)


async def _take_rejected(target: Database, copy: Copy, before: int) -> int:
    after = before
    while page := log.read_rejected(copy.connection, copy.head.name, after=after):
        await target.write(partial(_insert_rejected, ledger=copy.head.name, page=page))
        after = page[-1].number
    return after - before


def _insert_rejected(connection: Connection, ledger: str, page: Sequence[Rejected]) -> None:
    head = log.read_head(connection, ledger)
    for row in page:
        number, digest = head.rejected_count + 1, log.rejected_digest(head.rejected_digest, row)
        if (row.number, row.digest) != (number, digest):
            reason = f"rejected line {row.number} of the ledger {ledger!r} does not continue the chain"
            raise ChainError(reason, hint=_VERIFY_SOURCE)
        head = head._replace(rejected_count=number, rejected_digest=digest)
    insert_rows(connection, rejected, page)
    log.write_head(connection, head)


_VERIFY_SOURCE: Final = "run `podledger verify` on the database that it comes from"
