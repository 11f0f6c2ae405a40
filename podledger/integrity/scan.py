"""Read the log of a file that may be damaged as far as possible: each seq with its entry, or the reason why not.

An entry is read by its key, or by its row number if that fails. So a damaged index loses nothing, and a damaged page
loses only the entries that were on it.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from podledger.core.digest import NO_DIGEST, chain_digest
from podledger.core.entries import Entry
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
    for query in ("SELECT name FROM ledgers", "SELECT DISTINCT ledger FROM events", "SELECT ledger FROM pods"):
        try:
            names.update(name for (name,) in connection.exec_driver_sql(query) if isinstance(name, str))
        except UNREADABLE:
            continue
    return sorted(names)


class _Rows:
    """Reads the rows of one ledger's log: by key, or by row number if that fails."""

    def __init__(self, connection: Connection, ledger: str) -> None:
        self._connection = connection
        self._ledger = ledger
        self._attempts = MAX_FAILURES
        self._rows = array("q")

    def all(self) -> Iterator[tuple[int, Entry | None]]:
        """Yield each seq from 1 to the last one known, with its entry if it can be read."""
        last = self._last()
        for first in range(1, last + 1, PAGE):
            until = min(first + PAGE - 1, last)
            found = self._by_key(first, until)
            if len(found) <= until - first:
                found = self._by_row(first, until) | found
            for seq in range(first, until + 1):
                yield seq, found.get(seq)

    def _last(self) -> int:
        """Return the last seq by the index, the ledger's row or, if these differ, the log's rows."""
        candidates = [
            self._number("SELECT max(seq) FROM main.events WHERE ledger = ?"),
            self._number("SELECT head_seq FROM main.ledgers WHERE name = ?"),
        ]
        if None in candidates or candidates[0] != candidates[1]:
            self._find_rows()
            candidates.append(max((seq for seq, rowid in enumerate(self._rows) if rowid), default=0))
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

    def _by_key(self, first: int, last: int) -> dict[int, Entry]:
        query = f"SELECT {_FIELDS} FROM main.events WHERE ledger = ? AND seq BETWEEN ? AND ?"
        try:
            rows = self._connection.exec_driver_sql(query, (self._ledger, first, last)).all()
            return {row[1]: Entry(*row) for row in rows if self._is_sound(tuple(row), first, last)}
        except UNREADABLE:
            self._attempts -= 1
            if first == last or self._attempts <= 0:
                return {}
            middle = (first + last) // 2
            return self._by_key(first, middle) | self._by_key(middle + 1, last)

    def _by_row(self, first: int, last: int) -> dict[int, Entry]:
        self._find_rows()
        query = f"SELECT {_FIELDS} FROM main.events WHERE rowid = ?"
        found: dict[int, Entry] = {}
        for rowid in filter(None, self._rows[first : last + 1]):
            try:
                row = self._connection.exec_driver_sql(query, (rowid,)).first()
            except UNREADABLE:
                continue
            if row is not None and self._is_sound(tuple(row), first, last):
                found[row[1]] = Entry(*row)
        return found

    def _find_rows(self) -> None:
        """Find the row number of each seq without the index. They stay in memory: a damaged file takes no writes."""
        if not self._rows:
            self._rows = array("q", bytes(8 * (self._max_entries() + 1)))
            self._find_rows_between(1, self._max_entries())

    def _find_rows_between(self, first: int, last: int) -> None:
        query = "SELECT seq, rowid FROM main.events NOT INDEXED WHERE rowid BETWEEN ? AND ? AND ledger = ?"
        try:
            for seq, rowid in self._connection.exec_driver_sql(query, (first, last, self._ledger)):
                if isinstance(seq, int) and 0 < seq < len(self._rows):
                    self._rows[seq] = rowid
        except UNREADABLE:
            self._attempts -= 1
            if first < last and self._attempts > 0:
                middle = (first + last) // 2
                self._find_rows_between(first, middle)
                self._find_rows_between(middle + 1, last)

    def _is_sound(self, row: tuple[object, ...], first: int, last: int) -> bool:
        """Return whether a row belongs to the ledger and the range, and every value has the type of its column."""
        if row[0] != self._ledger or not isinstance(row[1], int) or not first <= row[1] <= last:
            return False
        return all(
            isinstance(value, kind) or (value is None and position in _NULLABLE)
            for position, (value, kind) in enumerate(zip(row, _TYPES, strict=True))
        )
