"""Engines over SQLite files, and statements that run on their drivers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Select,
    Table,
    Text,
    bindparam,
    column,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine.interfaces import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.types import TypeEngine

from podledger.core import strict_json
from podledger.store.sqlite.bounded import bounded

READERS: Final = 4
"""How many connections the async engine keeps."""

JOURNAL_SIZE_LIMIT: Final = 64 << 20
"""The size in bytes to which SQLite cuts a WAL that it has emptied."""

PRAGMAS: Final = (
    "trusted_schema = OFF",
    "cell_size_check = ON",
)
"""The pragmas of every connection, apart from its timeout."""

WRITER_PRAGMAS: Final = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "recursive_triggers = ON",
    "foreign_keys = ON",
    f"journal_size_limit = {JOURNAL_SIZE_LIMIT}",
)
"""The pragmas of a connection that writes, in addition."""

Row = Sequence[Any]
Values = Row | Mapping[str, Any]


def sync_engine(path: Path, busy_timeout_s: float, *, writing: bool) -> Engine:
    """Return an engine whose connections are opened for each use and work on any thread."""
    url = _url("sqlite", path, writing=writing)
    options: dict[str, Any] = {"check_same_thread": False}
    if not writing:  # only a database that you trust is written to, and appends are faster without the bounds
        options["factory"] = bounded(path.absolute())
    engine = create_engine(url, poolclass=NullPool, connect_args=options)
    _configure(engine, busy_timeout_s, writing=writing)
    return engine


def async_engine(path: Path, busy_timeout_s: float) -> AsyncEngine:
    """Return an engine over aiosqlite that keeps a few read-only connections."""
    url, options = _url("sqlite+aiosqlite", path, writing=False), {"factory": bounded(path.absolute())}
    engine = create_async_engine(url, pool_size=READERS, max_overflow=0, connect_args=options)
    _configure(engine.sync_engine, busy_timeout_s, writing=False)
    return engine


def read_only_uri(path: Path) -> str:
    """Return the URI that opens the file at `path` read-only."""
    return f"{_uri(path)}?mode=ro"


def _uri(path: Path) -> str:
    return f"file:{quote(os.fsencode(path.absolute()))}"


def _url(driver: str, path: Path, *, writing: bool) -> URL:
    return URL.create(driver, database=_uri(path), query={"mode": "rw" if writing else "ro", "uri": "true"})


def _configure(engine: Engine, busy_timeout_s: float, *, writing: bool) -> None:
    pragmas = [f"busy_timeout = {milliseconds(busy_timeout_s)}", *PRAGMAS, *(WRITER_PRAGMAS if writing else ())]
    begin = "BEGIN IMMEDIATE" if writing else "BEGIN"

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        fetch(connection, begin)


def milliseconds(seconds: float) -> int:
    """Return a time as SQLite's pragmas take it, which hold 31 bits: 24 days."""
    return int(min(seconds * 1000, (1 << 31) - 1))


def fetch(connection: Connection, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
    """Run one statement on the driver; return all its rows.

    Over aiosqlite this changes the thread once. SQLAlchemy's cursor would change it four times.
    """
    driver: object = connection.connection.dbapi_connection
    if isinstance(driver, AdaptedConnection):
        return list(driver.run_async(lambda reader: reader.execute_fetchall(statement, values)))
    cursor = connection.connection.cursor()
    cursor.execute(statement, values)
    return list(cursor.fetchall())


def fetch_page(connection: Connection, statement: str, values: Values, size: int) -> list[Row]:
    """Run one statement on the driver; return its first rows: at most `size`, and not many more than a page's bytes."""
    driver: object = connection.connection.dbapi_connection
    if isinstance(driver, AdaptedConnection):

        async def page(reader: Any) -> list[Row]:
            async with reader.execute(statement, values) as cursor:
                return list(await cursor.fetchmany(size))

        return list(driver.run_async(page))
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchmany(size))


def insertion(table: Table, replaced: Sequence[str] = ()) -> Insert:
    """Return an INSERT; where a row with the same key exists, it updates the `replaced` columns, or fails."""
    statement = insert(table)
    if not replaced:
        return statement
    values = {name: statement.excluded[name] for name in replaced}
    return statement.on_conflict_do_update(index_elements=table.primary_key, set_=values)


def text_list(parameter: str) -> Select[Any]:
    """Return a subquery with the texts that the bound `parameter` holds; `encode_list` makes its value."""
    return select(func.json_each(bindparam(parameter)).table_valued(column("value", Text)).c.value)


def row_list(parameter: str, **columns: type[TypeEngine[Any]]) -> Select[Any]:
    """Return a subquery with the rows that the bound `parameter` holds: a JSON array with an array for each row."""
    row = func.json_each(bindparam(parameter)).table_valued(column("value", Text)).c.value
    values = (func.json_extract(row, f"$[{at}]", type_=each) for at, each in enumerate(columns.values()))
    return select(*(value.label(name) for name, value in zip(columns, values, strict=True)))


def encode_list(texts: Iterable[str]) -> str:
    """Return the value of a parameter of `text_list`. No text may hold a NUL, which would end it in SQLite's JSON."""
    return strict_json.dumps(sorted(texts))
