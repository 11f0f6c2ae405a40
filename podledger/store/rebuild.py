"""The projections' rows that stand, beside those that should: where they differ, and how they are put right.

Both come in the order of the tables' keys, so each is read once, and no more than a row of either is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Table

from podledger.core.progress import Progress
from podledger.store.driver import PAGE, Row, execute_many, insert_rows, pages
from podledger.store.expected_rows import OF_NAMES, Rows, as_json, expected_rows
from podledger.store.log import read_head, write_head
from podledger.store.tables import PROJECTIONS

MAX_NAMED: Final = 100_000
"""Of how many pods that differ the names are kept; where there are more, every pod is taken for one."""


class RowDifference(NamedTuple):
    """A row that the projection holds and should not (`extra`), or should hold and does not."""

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
    """Where the rows that stand, of the pods of some names (None: of all), are not those that are expected."""
    standing = {table: _StoredRows(connection, ledger, table, names) for table in PROJECTIONS}
    for table, row in expected:
        yield from standing[table].meet(row)
    for rest in standing.values():
        yield from rest.rest()


class _StoredRows:
    """What stands in one table, as far as it was not met yet."""

    def __init__(self, connection: Connection, ledger: str, table: Table, names: Iterable[str] | None) -> None:
        query = _STANDING.format(
            columns=", ".join(table.columns.keys()),
            table=table.name,
            key=", ".join(column.name for column in table.primary_key),
        )
        self._table = table
        self._width = len(table.primary_key)
        self._rows = pages(connection, query, {"ledger": ledger, "names": as_json(names)})
        self._row = next(self._rows, None)

    def meet(self, expected: Row) -> Iterable[RowDifference]:
        """How the rows up to the key of the expected one differ from it."""
        if self._row == expected:
            self._row = next(self._rows, None)
            return ()
        return self._differing(expected)

    def rest(self) -> Iterator[RowDifference]:
        """The rows that none was expected for."""
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


_STANDING: Final = f"""
SELECT {{columns}} FROM {{table}}
WHERE ledger = :ledger AND {OF_NAMES}
ORDER BY {{key}}
"""


def _rank(key: Row) -> list[tuple[int, Any]]:
    """What sorts keys as SQLite does, whatever type a damaged file holds."""
    return [(_TYPES[type(value)], value) for value in key]


_TYPES: Final[dict[type, int]] = {type(None): 0, int: 1, float: 1, str: 2, bytes: 3}


def differing(connection: Connection, ledger: str, progress: Progress | None = None) -> frozenset[str] | None:
    """The names of the pods whose rows are not what the log says; None where they are too many, or are no names.

    Raises:
        ProtocolError: an entry was altered.
    """
    names: set[str] = set()
    for _, row, _ in differences(connection, ledger, expected_rows(connection, ledger, progress=progress)):
        name = row[1]
        names.add(name)
        if not isinstance(name, str) or "\0" in name or len(names) > MAX_NAMED:  # a NUL ends a text in SQLite's JSON
            return None
    return frozenset(names)


def put_right(connection: Connection, aside: Connection, ledger: str, names: frozenset[str] | None) -> int:
    """Make the rows of some pods (None: of all) what the log says, in the writer's transaction.

    `aside` reads what stood before that transaction. Returns how many rows were changed, put in or taken out. Where no
    pod is named, the rebuild is only counted.
    """
    changes, last = 0, None
    expected = iter(()) if names == frozenset() else expected_rows(aside, ledger, names)
    found = differences(aside, ledger, expected, names)
    while some := list(islice(found, PAGE)):
        for table in PROJECTIONS:
            _change(connection, table, [each for each in some if each.table is table])
        for each in some:
            at = (each.table.name, each.key)
            changes, last = changes + (at != last), at
    head = read_head(connection, ledger)
    write_head(connection, head._replace(rebuilds=head.rebuilds + 1))
    return changes


def _change(connection: Connection, table: Table, found: list[RowDifference]) -> None:
    keys = " AND ".join(f"{column.name} IS ?" for column in table.primary_key)
    execute_many(connection, f"DELETE FROM {table.name} WHERE {keys}", [each.key for each in found if each.extra])
    insert_rows(connection, table, [each.row for each in found if not each.extra])
