"""Statements that go straight to the driver, in the connection's transaction: those of every append and question.

SQLAlchemy adds 20 to 100 µs to a statement, which would be most of what a small one takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Table
from sqlalchemy.engine.interfaces import AdaptedConnection, DBAPICursor

ROWS_A_STATEMENT: Final = 50
"""How many rows of a long run one statement inserts. Between two of its steps the driver lets go of the interpreter's
lock, and beside a busy event loop it waited longer to get that back than the rows took. SQLite may bind 999 values."""

PAGE: Final = 500
"""How many rows are held in memory while many are read: so few that the garbage collector rarely sees one twice."""

Row = Sequence[Any]
Positions = tuple[int, ...]


def execute(connection: Connection, statement: str, values: Row | Mapping[str, Any] = ()) -> DBAPICursor:
    """Run one statement."""
    cursor = _cursor(connection)
    cursor.execute(statement, values)
    return cursor


def fetch(connection: Connection, statement: str, values: Row | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement; all its rows. Over aiosqlite that is one change of thread and back instead of three."""
    if not connection.in_transaction():
        connection.begin()
    driver: object = connection.connection.dbapi_connection
    if isinstance(driver, AdaptedConnection):
        return list(driver.run_async(lambda reader: reader.execute_fetchall(statement, values)))
    return list(execute(connection, statement, values).fetchall())


def pages(connection: Connection, statement: str, values: Row | Mapping[str, Any] = ()) -> Iterator[Row]:
    """The rows of one statement, a page in memory at a time."""
    cursor = execute(connection, statement, values)
    return chain.from_iterable(iter(lambda: cursor.fetchmany(PAGE), []))


def begin(connection: Connection, statement: str) -> None:
    """Begin the transaction by a statement of our own."""
    driver: object = connection.connection.dbapi_connection
    if isinstance(driver, AdaptedConnection):
        driver.run_async(lambda reader: reader.execute_fetchall(statement))
    else:
        connection.connection.cursor().execute(statement)


def execute_many(connection: Connection, statement: str, rows: Iterable[Row]) -> None:
    """Run one statement for each of `rows`."""
    _cursor(connection).executemany(statement, rows)  # type: ignore[arg-type]  # any iterable will do


def held(row: Row) -> Positions:
    """Where a row holds a value."""
    return tuple([position for position, value in enumerate(row) if value is not None])


def insert_rows(
    connection: Connection,
    table: Table,
    rows: Iterable[Row],
    held: Callable[[Any], Positions] = held,
    *,
    otherwise: str = "",
) -> None:
    """Insert rows whose values stand in the order of the table's columns; `otherwise` says what is done on a conflict.

    Only what `held` says is named: to bind a null takes Python's driver longer than to bind five other values, and a
    named tuple longer than an exact one.
    """
    cursor = _cursor(connection)
    for positions, run in groupby(rows, held):
        pick = itemgetter(*positions)
        while len(some := list(islice(run, ROWS_A_STATEMENT))) == ROWS_A_STATEMENT:
            statement = _insertion(table, positions, ROWS_A_STATEMENT) + otherwise
            cursor.execute(statement, tuple(chain.from_iterable(map(pick, some))))
        cursor.executemany(_insertion(table, positions, 1) + otherwise, map(pick, some))  # type: ignore[arg-type]


@lru_cache
def _insertion(table: Table, positions: Positions, rows: int) -> str:
    columns = table.columns.keys()
    names = ", ".join(columns[position] for position in positions)
    marks = ", ".join("?" * len(positions))
    return f"INSERT INTO {table.name} ({names}) VALUES {', '.join([f'({marks})'] * rows)}"


def _cursor(connection: Connection) -> DBAPICursor:
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.cursor()
