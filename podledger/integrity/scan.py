"""Read the log of a file that may be damaged as far as possible: each seq with its entry, or the reason why not.

An entry is read by its key, or by its row number if that fails. So a damaged index loses nothing, and a damaged page
loses only the entries that were on it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Final, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from podledger.core.digest import NO_DIGEST, chain_digest
from podledger.core.entries import Entry
from podledger.core.names import MAX_NAME_BYTES
from podledger.store.driver import PAGE
from podledger.store.sqlite.files import size_bytes

GONE: Final = "it cannot be read"
UNPROVEN: Final = "the entry before it is lost, so its digest proves nothing"
ALTERED: Final = "its digest does not match its content and the entry before it"

MAX_FAILURES: Final = 100_000
"""How many unreadable ranges are narrowed down before the rest of a log counts as unreadable."""

_FIELDS: Final = ", ".join(Entry._fields)
_TYPES: Final = (str, int, int, str, str, str, str, *(int,) * 3, *(str,) * 3, *(int,) * 2, *(str,) * 4, int, str)
_NULLABLE: Final = range(7, 18)
UNREADABLE: Final = (DBAPIError, sqlite3.Error, ValueError, TypeError, LookupError, OverflowError, AttributeError)
"""The errors that reading a damaged row or page may raise."""


class ScannedEntry(NamedTuple):
    """A seq of the log: its entry (None if it cannot be read), and its fault, empty if its chain holds."""

    seq: int
    entry: Entry | None
    fault: str


class Loss(NamedTuple):
    """A run of entries whose chain does not hold, `first` to `last`, and the reason."""

    first: int
    last: int
    reason: str


def scan(connection: Connection, ledger: str) -> Iterator[ScannedEntry]:
    """Yield every seq of the log in order."""
    believable = {NO_DIGEST}
    for seq, entry in _Rows(connection, ledger).all():
        if entry is None:
            believable = set()
            yield ScannedEntry(seq, None, GONE)
            continue
        digests = {before: chain_digest(before, entry) for before in believable}
        holds = entry.digest in digests.values()
        fault = "" if holds else ALTERED if digests else UNPROVEN
        # After an altered entry, the next one may continue its stored digest or the digest that it should have.
        believable = {entry.digest} if holds else {entry.digest, *digests.values()}
        yield ScannedEntry(seq, entry, fault)


def losses(scanned: Iterator[ScannedEntry]) -> Iterator[Loss]:
    """Yield the runs of seqs whose chain does not hold, each with its reason."""
    run: Loss | None = None
    for seq, _, fault in scanned:
        if run is not None and (fault != run.reason or seq != run.last + 1):
            yield run
            run = None
        if fault:
            run = Loss(run.first if run else seq, seq, fault)
    if run is not None:
        yield run


def scanned_ledgers(connection: Connection) -> list[str]:
    """Return the names of the ledgers in the file, from every table that can still be read."""
    names: set[str] = set()
    for column, table in (("name", "ledgers"), ("ledger", "events"), ("ledger", "pods")):
        query = f"SELECT DISTINCT {column} FROM {table} WHERE length({column}) <= ?"
        try:
            rows = connection.exec_driver_sql(query, (MAX_NAME_BYTES,)).all()
            names.update(name for (name,) in rows if isinstance(name, str))
        except UNREADABLE:
            continue
    return sorted(names)


class _Rows:
    """Reads the rows of one ledger's log: by key, or by row number if that fails."""

    def __init__(self, connection: Connection, ledger: str) -> None:
        self._connection = connection
        self._ledger = ledger
        self._attempts = MAX_FAILURES
        self._rows: sqlite3.Connection | None = None

    def all(self) -> Iterator[tuple[int, Entry | None]]:
        """Yield each seq from 1 to the last one known, with its entry if it can be read."""
        first, last, step = 1, self._last(), PAGE
        while first <= last:
            found, until = self._by_key(first, min(first + step - 1, last))
            if not found and first < until and self._attempts > 0:
                step = max(1, step // 2)
                continue
            for seq in range(first, until + 1):
                yield seq, found.pop(seq, None) or self._by_row(seq)
            first, step = until + 1, min(2 * step, PAGE)

    def _last(self) -> int:
        """Return the last seq by the index, the ledger's row or, if these differ, the log's rows."""
        candidates = [
            self._number("SELECT max(seq) FROM main.events WHERE ledger = ?"),
            self._number("SELECT head_seq FROM main.ledgers WHERE name = ?"),
        ]
        if None in candidates or candidates[0] != candidates[1]:
            candidates += self._found_rows().execute("SELECT max(seq) FROM found").fetchone()
        return max((number for number in candidates if number is not None and number <= self._max_entries()), default=0)

    def _max_entries(self) -> int:
        """Return an upper bound on the entries that the file can hold, by its size."""
        return size_bytes(self._connection) // 64 + 1

    def _number(self, query: str) -> int | None:
        try:
            value = self._connection.exec_driver_sql(query, (self._ledger,)).scalar()
        except UNREADABLE:
            return None
        return value if isinstance(value, int) else None

    def _by_key(self, first: int, last: int) -> tuple[dict[int, Entry], int]:
        """Return the entries from `first` on, and how far they reach: to `last`, or less far if they are large."""
        query = f"SELECT {_FIELDS} FROM main.events WHERE ledger = ? AND seq BETWEEN ? AND ? ORDER BY seq"
        try:
            with closing(self._connection.exec_driver_sql(query, (self._ledger, first, last))) as result:
                rows = result.fetchmany(PAGE)
        except UNREADABLE:
            self._attempts -= 1
            return {}, last
        found = {row[1]: Entry(*row) for row in rows if self._is_sound(tuple(row), first, last)}
        return found, max(found, default=last) if len(rows) <= last - first else last

    def _by_row(self, seq: int) -> Entry | None:
        query = f"SELECT {_FIELDS} FROM main.events WHERE rowid = ?"
        for (rowid,) in self._found_rows().execute("SELECT place FROM found WHERE seq = ?", (seq,)):
            try:
                row = self._connection.exec_driver_sql(query, (rowid,)).first()
            except UNREADABLE:
                continue
            if row is not None and self._is_sound(tuple(row), seq, seq):
                return Entry(*row)
        return None

    def _found_rows(self) -> sqlite3.Connection:
        """Return the row number of each seq, found without the index, in a temporary database."""
        if self._rows is None:
            self._rows = sqlite3.connect("", isolation_level=None)
            self._rows.execute("CREATE TABLE found (seq INTEGER PRIMARY KEY, place INTEGER)")
            self._find_rows_between(self._rows, 1, self._max_entries())
        return self._rows

    def _find_rows_between(self, rows: sqlite3.Connection, first: int, last: int) -> None:
        query = "SELECT seq, rowid FROM main.events NOT INDEXED WHERE rowid BETWEEN ? AND ? AND ledger = ?"
        try:
            with closing(self._connection.exec_driver_sql(query, (first, last, self._ledger))) as result:
                while page := [tuple(row) for row in result.fetchmany(PAGE)]:
                    sound = [row for row in page if isinstance(row[0], int) and 0 < row[0] <= self._max_entries()]
                    rows.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", sound)
        except UNREADABLE:
            self._attempts -= 1
            if first < last and self._attempts > 0:
                middle = (first + last) // 2
                self._find_rows_between(rows, first, middle)
                self._find_rows_between(rows, middle + 1, last)

    def _is_sound(self, row: tuple[object, ...], first: int, last: int) -> bool:
        """Return whether a row belongs to the ledger and the range, and every value has the type of its column."""
        if row[0] != self._ledger or not isinstance(row[1], int) or not first <= row[1] <= last:
            return False
        return all(
            isinstance(value, kind) or (value is None and position in _NULLABLE)
            for position, (value, kind) in enumerate(zip(row, _TYPES, strict=True))
        )
