"""The log of a file that may be damaged, read as far as it can be: each seq with its entry, or why there is none.

An entry is looked up by its key, and where that fails by its row; so a damaged index costs nothing, and a damaged page
costs the entries that it held.
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

GONE: Final = "it cannot be read"
UNPROVEN: Final = "the entry before it is lost, so its digest proves nothing"
ALTERED: Final = "its digest is not that of what it holds and of the entry before"

MAX_FAILURES: Final = 100_000
"""How many unreadable stretches are narrowed down before the rest of a log counts as unreadable."""

_FIELDS: Final = ", ".join(Entry._fields)
_TYPES: Final = (str, int, int, str, str, str, str, *(int,) * 3, *(str,) * 2, *(int,) * 2, str, str, int, str)
_NULLABLE: Final = range(7, 15)
UNREADABLE: Final = (DBAPIError, sqlite3.Error, ValueError, TypeError, LookupError, OverflowError, AttributeError)
"""What reading a damaged row or page raises."""


class ScannedEntry(NamedTuple):
    """How one entry of the log stands; `fault` is empty where its chain holds. `entry` is None if it is gone."""

    seq: int
    entry: Entry | None
    fault: str


class Loss(NamedTuple):
    """A run of entries whose chain does not hold, `first` to `last`, and why."""

    first: int
    last: int
    reason: str


def scan(connection: Connection, ledger: str) -> Iterator[ScannedEntry]:
    """Every entry of the log in order."""
    believable = {NO_DIGEST}
    for seq, entry in _Rows(connection, ledger).all():
        if entry is None:
            believable = set()
            yield ScannedEntry(seq, None, GONE)
            continue
        digests = {before: chain_digest(before, entry) for before in believable}
        holds = entry.digest in digests.values()
        fault = "" if holds else ALTERED if digests else UNPROVEN
        # After an altered entry, the next may continue its stored digest or the one that it should have had.
        believable = {entry.digest} if holds else {entry.digest, *digests.values()}
        yield ScannedEntry(seq, entry, fault)


def losses(scanned: Iterator[ScannedEntry]) -> Iterator[Loss]:
    """The runs of seqs whose chain does not hold, each with its reason."""
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
    """The ledgers that the file holds, by whatever table still tells."""
    found: set[str] = set()
    for query in ("SELECT name FROM ledgers", "SELECT DISTINCT ledger FROM events", "SELECT ledger FROM pods"):
        try:
            found.update(name for (name,) in connection.exec_driver_sql(query) if isinstance(name, str))
        except UNREADABLE:
            continue
    return sorted(found)


class _Rows:
    """The rows of one ledger's log, by key where that works, else by row number."""

    def __init__(self, connection: Connection, ledger: str) -> None:
        self._connection = connection
        self._ledger = ledger
        self._patience = MAX_FAILURES
        self._rows = array("q")

    def all(self) -> Iterator[tuple[int, Entry | None]]:
        """Each seq from 1 to the last that anything tells of, with its entry if it can be read."""
        last = self._last()
        for first in range(1, last + 1, PAGE):
            until = min(first + PAGE - 1, last)
            found = self._by_key(first, until)
            if len(found) <= until - first:
                found = self._by_row(first, until) | found
            for seq in range(first, until + 1):
                yield seq, found.get(seq)

    def _last(self) -> int:
        """The last seq that the index, the ledger's row or a row of the log tells of, of what the file can hold."""
        told = [
            self._number("SELECT max(seq) FROM main.events WHERE ledger = ?"),
            self._number("SELECT head_seq FROM main.ledgers WHERE name = ?"),
        ]
        if None in told or told[0] != told[1]:
            self._scan()
            told.append(max((seq for seq, rowid in enumerate(self._rows) if rowid), default=0))
        return max((number for number in told if number is not None and number <= self._most()), default=0)

    def _most(self) -> int:
        """More entries than the file's bytes could hold."""
        pages = self._connection.exec_driver_sql("PRAGMA main.page_count").scalar_one()
        size = self._connection.exec_driver_sql("PRAGMA main.page_size").scalar_one()
        return int(pages) * int(size) // 64 + 1

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
            self._patience -= 1
            if first == last or self._patience <= 0:
                return {}
            middle = (first + last) // 2
            return self._by_key(first, middle) | self._by_key(middle + 1, last)

    def _by_row(self, first: int, last: int) -> dict[int, Entry]:
        self._scan()
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

    def _scan(self) -> None:
        """Note at which row each seq is, without the index: in memory, for of a damaged file SQLite takes no writes."""
        if not self._rows:
            self._rows = array("q", bytes(8 * (self._most() + 1)))
            self._scan_range(1, self._most())

    def _scan_range(self, first: int, last: int) -> None:
        query = "SELECT seq, rowid FROM main.events NOT INDEXED WHERE rowid BETWEEN ? AND ? AND ledger = ?"
        try:
            for seq, rowid in self._connection.exec_driver_sql(query, (first, last, self._ledger)):
                if isinstance(seq, int) and 0 < seq < len(self._rows):
                    self._rows[seq] = rowid
        except UNREADABLE:
            self._patience -= 1
            if first < last and self._patience > 0:
                middle = (first + last) // 2
                self._scan_range(first, middle)
                self._scan_range(middle + 1, last)

    def _is_sound(self, row: tuple[object, ...], first: int, last: int) -> bool:
        """Whether a row is of the ledger and in the range, and each of its values of the column's type."""
        if row[0] != self._ledger or not isinstance(row[1], int) or not first <= row[1] <= last:
            return False
        return all(
            isinstance(value, kind) or (value is None and position in _NULLABLE)
            for position, (value, kind) in enumerate(zip(row, _TYPES, strict=True))
        )
