"""Rebuild: find the stored rows of the projections that differ from the expected ones, and correct them.

Both come in the order of the tables' keys, so each is read once, and only one row of either is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table, bindparam, delete, select

from podledger.core.progress import Progress
from podledger.store.driver import PAGE, HotStatement, Row, insert_rows
from podledger.store.expected_rows import Rows, expected_rows
from podledger.store.log import read_head, write_head
from podledger.store.sqlite.engines import encode_list, text_list
from podledger.store.tables import PROJECTIONS

MAX_NAMED: Final = 100_000
"""The most names of differing pods and streams that are kept. If there are more, all rows are corrected."""


class RowDifference(NamedTuple):
    """A stored row that is not expected (`extra`), or an expected row that is not stored."""

    table: Table
    row: Row
    extra: bool

    @property
    def key(self) -> Row:
        """The row's key."""
        return self.row[: len(self.table.primary_key)]


def differences(
    connection: Connection, ledger: str, expected: Rows, names: Iterable[str] | None = None
) -> Iterator[RowDifference]:
    """Yield where the stored rows of the pods and streams of some names (None: of all) differ from the expected ones.

    The name of a pod or stream is the second column of each key.
    """
    stored = {table: _StoredRows(connection, ledger, table, names) for table in PROJECTIONS}
    for table, row in expected:
        yield from stored[table].compare(row)
    for rows in stored.values():
        yield from rows.rest()


class _StoredRows:
    """The rows of one table that were not compared yet."""

    def __init__(self, connection: Connection, ledger: str, table: Table, names: Iterable[str] | None) -> None:
        self._table = table
        self._width = len(table.primary_key)
        values = {"ledger": ledger} if names is None else {"ledger": ledger, "names": encode_list(names)}
        self._rows = _stored(table, some=names is not None).pages(connection, values)
        self._row = next(self._rows, None)

    def compare(self, expected: Row) -> Iterable[RowDifference]:
        """Return how the rows up to the key of the expected one differ from it."""
        if self._row == expected:
            self._row = next(self._rows, None)
            return ()
        return self._differing(expected)

    def rest(self) -> Iterator[RowDifference]:
        """Yield the rows after the last expected one."""
        while self._row is not None:
            yield RowDifference(self._table, self._row, extra=True)
            self._row = next(self._rows, None)

    def _differing(self, expected: Row) -> Iterator[RowDifference]:
        until = _rank(expected[: self._width])
        while self._row is not None and _rank(self._row[: self._width]) <= until:
            row, self._row = self._row, next(self._rows, None)
            if row == expected:
                return
            yield RowDifference(self._table, row, extra=True)
        yield RowDifference(self._table, expected, extra=False)


@cache
def _stored(table: Table, *, some: bool) -> HotStatement:
    """Return the query for a table's rows in the order of its key, all or those of `some` names."""
    query = select(table).where(table.c.ledger == bindparam("ledger")).order_by(*table.primary_key)
    _, name, *_ = table.primary_key
    return HotStatement(query.where(name.in_(text_list("names"))) if some else query)


def _rank(key: Row) -> list[tuple[int, Any]]:
    """Return the sort key that orders keys as SQLite does, also if a damaged file holds values of other types."""
    return [(_TYPES[type(value)], value) for value in key]


_TYPES: Final[dict[type, int]] = {type(None): 0, int: 1, float: 1, str: 2, bytes: 3}


def differing(connection: Connection, ledger: str, progress: Progress | None = None) -> frozenset[str] | None:
    """Return the names of the pods and streams whose rows differ; None if `text_list` cannot hold them, or too many.

    Raises:
        ProtocolError: an entry was altered.
    """
    names: set[str] = set()
    for _, row, _ in differences(connection, ledger, expected_rows(connection, ledger, progress=progress)):
        name = row[1]
        names.add(name)
        if not isinstance(name, str) or "\0" in name or len(names) > MAX_NAMED:
            return None
    return frozenset(names)


def correct_rows(connection: Connection, snapshot: Connection, ledger: str, names: frozenset[str] | None) -> int:
    """Make the rows of some pods and streams (None: of all) the expected ones, in the writer's transaction.

    `snapshot` reads the rows as they were before that transaction. Returns how many rows were changed, added or
    removed. If no name is given, this only counts the rebuild.
    """
    changes, last = 0, None
    expected = iter(()) if names == frozenset() else expected_rows(snapshot, ledger, names)
    found = differences(snapshot, ledger, expected, names)
    while some := list(islice(found, PAGE)):
        for table in PROJECTIONS:
            _correct(connection, table, [each for each in some if each.table is table])
        for each in some:
            at = (each.table.name, each.key)
            changes, last = changes + (at != last), at
    head = read_head(connection, ledger)
    write_head(connection, head._replace(rebuilds=head.rebuilds + 1))
    return changes


def _correct(connection: Connection, table: Table, found: list[RowDifference]) -> None:
    key = table.primary_key.columns.keys()
    _removal(table).run_many(connection, [dict(zip(key, each.key, strict=True)) for each in found if each.extra])
    insert_rows(connection, table, [each.row for each in found if not each.extra])


@cache
def _removal(table: Table) -> HotStatement:
    """Return the statement that removes a row by its key, in which a damaged file may hold a null."""
    key = [column.is_not_distinct_from(bindparam(column.name)) for column in table.primary_key]
    return HotStatement(delete(table).where(*key))
