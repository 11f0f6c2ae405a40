"""Hot statements: SQLAlchemy Core that is compiled once and then runs on the driver, in the connection's transaction.

SQLAlchemy adds 20 to 100 µs to each statement, most of what a small one takes. So the statements of every append and
of the common questions run here; all others run as Core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import ClauseElement, Connection, Table, insert
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler

from podledger.store.sqlite import engines

ROWS_A_STATEMENT: Final = 50
"""How many rows of a long run one statement inserts. The driver releases the interpreter's lock between two of its
steps; in a process with a busy event loop, waiting to get it back took longer than the rows. SQLite may bind 999
values."""

PAGE: Final = 500
"""How many rows are held in memory while many are read: so few that the garbage collector rarely sees one twice."""

Row = Sequence[Any]
Positions = tuple[int, ...]


class _Compiled(NamedTuple):
    """A statement's text in one dialect, its own values, and the names of all values in the order of their marks."""

    text: str
    constants: Mapping[str, Any]
    order: Sequence[str]


class HotStatement:
    """A Core statement that runs as its compiled text on the driver.

    It is compiled once per dialect, so it may hold no parameter that expands: write `in_` with one `bindparam` a value.
    `columns` are those that an INSERT or UPDATE sets, in the order of its table.
    """

    def __init__(self, statement: ClauseElement, columns: Sequence[str] = ()) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def fetch(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run the statement with these values, by name; return all its rows."""
        text, constants, order = self.prepare(connection)
        named = {**constants, **values}
        return engines.fetch(connection, text, [named[name] for name in order])

    def pages(self, connection: Connection, values: Mapping[str, Any]) -> Iterator[Row]:
        """Run the statement on a sync connection; yield its rows, with a page in memory at a time."""
        text, constants, order = self.prepare(connection)
        named = {**constants, **values}
        cursor = connection.connection.cursor()
        cursor.execute(text, [named[name] for name in order])
        return chain.from_iterable(iter(lambda: cursor.fetchmany(PAGE), []))

    def run_many(self, connection: Connection, rows: Iterable[Row]) -> None:
        """Run the statement once for each row, on a sync connection. It may hold no values of its own.

        A row holds the values of `columns`, then those of the WHERE, from left to right. For example,
        `HotStatement(update(pods).where(pods.c.pod_name == bindparam("name")), ["newest", "status"])` takes rows of
        `newest`, `status` and `name`. A name in the WHERE must not be that of a column.
        """
        text = self.prepare(connection).text
        connection.connection.cursor().executemany(text, rows)  # type: ignore[arg-type]  # any iterable will do

    def prepare(self, connection: Connection) -> _Compiled:
        """Return the statement as the connection's driver takes it, and begin a transaction unless it has one."""
        if not connection.in_transaction():
            connection.begin()
        dialect = connection.dialect
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = self._statement.compile(dialect=dialect, column_keys=self._columns or None)
            assert isinstance(compiled, SQLCompiler)  # noqa: S101 - what compiles to DDL is no statement for here
            order = compiled.positiontup or ()
            assert list(order[: len(self._columns)]) == list(self._columns), order  # noqa: S101 - or rows are misread
            found = self._compiled[dialect.name] = _Compiled(str(compiled), compiled.params, order)
        return found


def held(row: Row) -> Positions:
    """Return the positions at which a row holds a value."""
    return tuple([position for position, value in enumerate(row) if value is not None])


def insert_rows(
    connection: Connection,
    table: Table,
    rows: Iterable[Row],
    held: Callable[[Any], Positions] = held,
    *,
    replace: bool = False,
    otherwise: str = "",
) -> None:
    """Insert rows whose values are in the order of the table's columns; `replace` updates a row that has the same key.

    The statement names only the columns that `held` returns. Python's driver takes longer to bind a null than to bind
    five other values, and longer for a named tuple than for an exact one.
    """
    for positions, run in groupby(rows, held):
        pick = itemgetter(*positions)
        one = _insertion(table, positions, replace=replace).prepare(connection).text + otherwise
        cursor = connection.connection.cursor()
        while len(some := list(islice(run, ROWS_A_STATEMENT))) == ROWS_A_STATEMENT:
            cursor.execute(_repeated(one, ROWS_A_STATEMENT), tuple(chain.from_iterable(map(pick, some))))
        cursor.executemany(one, map(pick, some))  # type: ignore[arg-type]


@lru_cache
def _insertion(table: Table, positions: Positions, *, replace: bool) -> HotStatement:
    columns = table.columns.keys()
    statement = engines.upsert(table) if replace else insert(table)
    return HotStatement(statement, [columns[position] for position in positions])


def _repeated(insertion: str, rows: int) -> str:
    """Return the insertion of one row as that of several."""
    start = insertion.index("VALUES ") + len("VALUES ")
    end = insertion.index(")", start) + 1
    return insertion[:end] + f", {insertion[start:end]}" * (rows - 1) + insertion[end:]


def fetch(connection: Connection, statement: str, values: Row = ()) -> list[tuple[Any, ...]]:
    """Run one compiled statement; return all its rows."""
    _begin(connection)
    return engines.fetch(connection, statement, values)


def execute(connection: Connection, statement: str, values: Row = ()) -> DBAPICursor:
    """Run one compiled statement on a sync connection."""
    _begin(connection)
    cursor = connection.connection.cursor()
    cursor.execute(statement, values)
    return cursor


def execute_many(connection: Connection, statement: str, rows: Iterable[Row]) -> None:
    """Run one compiled statement for each of `rows`."""
    _begin(connection)
    connection.connection.cursor().executemany(statement, rows)  # type: ignore[arg-type]


def _begin(connection: Connection) -> None:
    if not connection.in_transaction():
        connection.begin()
