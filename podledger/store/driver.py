"""Statements that go straight to the driver, in the connection's transaction: those of every append and question.

SQLAlchemy adds 20 to 100 µs to a statement, which would be most of what a small one takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.engine.interfaces import AdaptedConnection, DBAPICursor

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
    connection: Connection, table: Table, rows: Iterable[Row], held: Callable[[Any], Positions] = held
) -> None:
    """Insert rows whose values stand in the order of the table's columns.

    Only what `held` says is named: to bind a null takes Python's driver longer than to bind five other values, and a
    named tuple longer than an exact one.
    """
    for positions, run in groupby(rows, held):
        statement, pick = _insertion(table, positions)
        execute_many(connection, statement, map(pick, run))


@lru_cache
def _insertion(table: Table, positions: Positions) -> tuple[str, Callable[[Row], Row]]:
    columns = table.columns.keys()
    names = ", ".join(columns[position] for position in positions)
    marks = ", ".join("?" * len(positions))
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks})", itemgetter(*positions)


def _cursor(connection: Connection) -> DBAPICursor:
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.cursor()
