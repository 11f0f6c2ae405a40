"""The ledgers of a whole tree brought together: each as it is, under its own name, in one database.

What is copied is the record: the events with their seq, time and digest, and the rejected lines. What made the ledger
act stays behind (its parent's socket, its mirror, its outbox, its consumers), so that a collection sends nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection

from podledger.archive.divergence import Copy, check_agree
from podledger.core.errors import ChainError, UsageError
from podledger.core.events import Entry
from podledger.store import append, log
from podledger.store.connections import read_only
from podledger.store.database import Database, locate
from podledger.store.driver import insert_rows
from podledger.store.expected_rows import Progress
from podledger.store.log import Rejected, Selection
from podledger.store.projections import StateCache
from podledger.store.schema import check_whole, prepare
from podledger.store.tables import rejected


class Collected(NamedTuple):
    """What was taken of one ledger: how many entries and rejected lines, and how many entries are there now."""

    ledger: str
    source: str
    events: int
    rejected: int
    head_seq: int

    def as_json(self) -> dict[str, Any]:
        """The ledger as `collect --json` prints it."""
        return self._asdict()


async def collect(
    sources: Sequence[str | os.PathLike[str]], into: str | os.PathLike[str], progress: Progress | None = None
) -> list[Collected]:
    """Bring the ledgers of the databases `sources` into the database `into`, which is made if need be.

    A ledger that is there already is continued, or left where it is the longer one. Nothing is written before all
    ledgers were compared; what an interruption leaves is a beginning, from which the next time goes on.

    Raises:
        ChainError: two ledgers of one name disagree, or one breaks its own chain.
        LedgerNotFoundError: one of the databases is not there.
        UsageError: one of them is `into` itself.
        SchemaError: one of them is of another version of podledger.
        StorageError: one cannot be read, or `into` not written.
    """
    paths = [_checked(source) for source in sources]
    for path in paths:
        if locate(into).exists() and path.samefile(locate(into)):
            raise UsageError(f"{path} is to go into itself", hint="give --into another database")
    target = await Database.open(into, create=True)
    try:
        with ExitStack() as stack:
            copies = [copy for path in paths for copy in _copies(path, stack)]
            await target.read(partial(_compare, copies=copies, place=str(target.path)))
            return [await _take(target, copy, progress) for copy in copies]
    finally:
        await target.close()


def _checked(source: str | os.PathLike[str]) -> Path:
    path = locate(source)
    check_whole(path)
    prepare(path, create=False)
    return path


def _copies(path: Path, stack: ExitStack) -> list[Copy]:
    """The ledgers of one database, as they are at one moment."""
    connection = stack.enter_context(read_only(path))
    return [Copy(str(path), connection, log.read_head(connection, name)) for name in log.ledger_names(connection)]


def _compare(connection: Connection, copies: Sequence[Copy], place: str) -> None:
    """See that all ledgers of one name agree, those of the collection too."""
    kept = [Copy(place, connection, log.read_head(connection, name)) for name in log.ledger_names(connection)]
    for one, other in combinations([*kept, *copies], 2):
        if one.head.name == other.head.name:
            check_agree(one, other)


async def _take(target: Database, copy: Copy, progress: Progress | None) -> Collected:
    """Copy what the collection does not have yet of one ledger, a page a transaction."""
    _, here, head = copy
    before = await target.write(partial(log.make_ledger, name=head.name, now_us=head.created_us))
    after, cache = before.head_seq, StateCache()
    while page := await asyncio.to_thread(log.read_page, here, head.name, Selection(after, head.head_seq)):
        await target.write(partial(_restore, ledger=head.name, cache=cache, entries=page))
        after = page[-1].seq
        if progress:
            progress(after, head.head_seq)
    lines = await _take_rejected(target, copy, before.rejected_count)
    return Collected(head.name, copy.place, after - before.head_seq, lines, after)


def _restore(connection: Connection, ledger: str, cache: StateCache, entries: Sequence[Entry]) -> None:
    _, refused = append.restore_batch(connection, ledger, cache, entries)
    for position, reason in refused:
        what = f"seq {entries[position].seq} of the ledger {ledger!r} is not taken: {reason}"
        raise ChainError(what, hint="run `podledger verify` on the database that it is from")


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
            reason = f"rejected line {row.number} of the ledger {ledger!r} does not continue their chain"
            raise ChainError(reason, hint="run `podledger verify` on the database that it is from")
        head = head._replace(rejected_count=number, rejected_digest=digest)
    insert_rows(connection, rejected, page)
    log.write_head(connection, head)
