"""The checks of one ledger: its row, its log, its projections, and the tables that change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from sqlalchemy import Connection, func, select

from podledger.core.digest import NO_DIGEST, NO_PAYLOAD, chain_digest
from podledger.core.entries import Entry
from podledger.core.problem import Problem
from podledger.core.progress import Progress
from podledger.core.text import escape
from podledger.core.times import EARLIEST_US, LATEST_US
from podledger.integrity.scan import UNREADABLE
from podledger.store import log
from podledger.store.coverage import Coverage
from podledger.store.expected_rows import checked_rows
from podledger.store.log import Head
from podledger.store.outbox_rows import read_outbox
from podledger.store.rebuild import RowDifference, differences
from podledger.store.tables import consumers, events, ledgers, metadata, outbox, rejected

MAX_SHOWN: Final = 100
"""How many characters of a stored value a problem shows."""


def head_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    """Yield changes of the ledger's row, rows of unknown ledgers, and rows numbered below 1."""
    if head.with_checksum() != head:
        yield Problem("head", None, "the ledger's row was changed in place")
    for table in metadata.tables.values():
        column = table.c.name if table is ledgers else table.c.ledger
        query = select(column).distinct().where(column.not_in(select(ledgers.c.name)))
        for name in connection.execute(query).scalars():
            shown = escape(str(name), MAX_SHOWN)
            yield Problem("ledger", None, f"{table.name} has rows of {shown!r}, which is no ledger here")
    for number in (events.c.seq, rejected.c.number, outbox.c.number):
        name = number.table.name
        below = select(func.count()).where(number.table.c.ledger == head.name, number < 1)
        if count := connection.execute(below).scalar():
            yield Problem("numbering", None, f"{name} has {count} rows numbered below 1")


def log_problems(
    connection: Connection, head: Head, coverage: Coverage, progress: Progress | None
) -> Iterator[Problem]:
    """Yield where the log's numbers, times and digests do not follow each other, or do not end at the head."""
    seq, recorded_us, digest, count = 0, 0, NO_DIGEST, 0
    while page := log.read_page(connection, head.name, log.Selection(after=seq)):
        absent = coverage.payload_digests(connection, page)
        for entry in page:
            yield from _entry_problems(entry, seq, recorded_us, digest, absent.get(entry.seq))
            seq, recorded_us, digest = entry.seq, max(recorded_us, entry.recorded_us), entry.digest
        count += len(page)
        if progress:
            progress(count, head.head_seq)
    if (seq, digest, recorded_us) != (head.head_seq, head.head_digest, head.head_us):
        yield Problem("head", None, f"the log ends at seq {seq}, and the ledger's row says {head.head_seq}")


def _entry_problems(entry: Entry, seq: int, recorded_us: int, digest: str, absent: str | None) -> Iterator[Problem]:
    """Yield the problems of an entry that follows one with this seq, time and digest."""
    if entry.seq != seq + 1:
        yield Problem("numbering", entry.seq, f"it follows seq {seq}")
    if entry.recorded_us < recorded_us:
        yield Problem("time", entry.seq, "it was recorded before the entry that it follows")
    if not EARLIEST_US <= entry.recorded_us <= LATEST_US:
        yield Problem("time", entry.seq, f"its time, {entry.recorded_us} µs after 1970, is not in the years 1 to 9999")
    if "" in entry:
        yield Problem("chain", entry.seq, "it holds an empty text in place of a null or a word")
    if entry.digest != chain_digest(digest, entry, absent if entry.payload == NO_PAYLOAD else None):
        yield Problem("chain", entry.seq, "its digest does not match its content and the entry before it")


def projection_problems(connection: Connection, ledger: str, coverage: Coverage, limit: int) -> Iterator[Problem]:
    """Yield the outcomes and the projections' rows that the rules do not give; at most `limit` of each."""
    outcomes: list[Problem] = []

    def on_problem(problem: Problem) -> None:
        if len(outcomes) < limit:
            outcomes.append(problem)

    rows = checked_rows(connection, ledger, coverage.projects, on_problem)
    try:
        differing = [_row_problem(difference) for difference in islice(differences(connection, ledger, rows), limit)]
    except UNREADABLE:
        yield from outcomes
        raise
    yield from outcomes
    yield from differing


def _row_problem(difference: RowDifference) -> Problem:
    state = "does not follow from the log" if difference.extra else "is missing"
    key = ", ".join(escape(str(value), MAX_SHOWN) for value in difference.key[1:])
    return Problem("projection", None, f"{difference.table.name}: the row of {key!r} {state}")


def rejected_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    """Yield where the chain of the rejected lines is broken."""
    number, digest = 0, NO_DIGEST
    while page := log.read_rejected(connection, head.name, after=number):
        for row in page:
            if row.number != number + 1:
                yield Problem("rejected", None, f"line {row.number} follows line {number}")
            if row.digest != log.rejected_digest(digest, row):
                yield Problem("rejected", None, f"line {row.number} was changed in place")
            number, digest = row.number, row.digest
    if (number, digest) != (head.rejected_count, head.rejected_digest):
        yield Problem("rejected", None, f"{number} lines are there, and the ledger's row says {head.rejected_count}")


def outbox_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    """Yield the rows of the outbox that were changed or removed from outside."""
    number = 0
    while page := read_outbox(connection, head.name, after=number):
        for row in page:
            if row.number != number + 1:
                yield Problem("outbox", row.seq, f"row {row.number} follows row {number}")
            if row.with_checksum() != row:
                yield Problem("outbox", row.seq, f"row {row.number} was changed in place")
            number = row.number
    if number != head.outbox_count:
        yield Problem("outbox", None, f"{number} rows are there, and the ledger's row says {head.outbox_count}")


def consumer_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    """Yield the cursors of notifications that were changed or removed from outside."""
    rows = connection.execute(consumers.select().where(consumers.c.ledger == head.name)).all()
    for row in rows:
        if row.row_checksum != log.row_checksum(row[:-1]):
            name = escape(str(row.name), MAX_SHOWN)
            yield Problem("consumer", None, f"the cursor of {name!r} was changed in place")
    if len(rows) != head.consumer_count:
        yield Problem("consumer", None, f"{len(rows)} are there, and the ledger's row says {head.consumer_count}")
