"""The engines of a database, and connections that are opened for one task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData

from podledger.store.own_tables import check_tables
from podledger.store.sqlite.engines import async_engine, sync_engine
from podledger.store.sqlite.errors import translated
from podledger.store.sqlite.files import durability_settings
from podledger.store.tables import metadata

BUSY_TIMEOUT_S: Final = 5.0
"""How long a connection waits for another one's lock."""


class Engines:
    """The engines of one open database. `Database` makes them and closes them.

    `questions` is async; `jobs` and `writer` are sync. All but `writer` open the file read-only.
    """

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self.questions = async_engine(path, busy_timeout_s)
        self.jobs = sync_engine(path, busy_timeout_s, writing=False)
        self.writer = sync_engine(path, busy_timeout_s, writing=True)

    async def dispose(self) -> None:
        """Close the connections that the engines keep."""
        try:
            await self.questions.dispose()
        finally:
            self.jobs.dispose()
            self.writer.dispose()


@contextmanager
def read_only(path: Path, *, tables: MetaData = metadata) -> Iterator[Connection]:
    """Open a read-only connection on one snapshot of the file at `path`; it works on any thread.

    `tables` are those that will be read, as far as the database has them.

    Raises:
        DamagedError: one of the tables is not podledger's.
        StorageError: the file cannot be opened or read.
    """
    with _engine(path, writing=False) as engine, engine.connect() as connection:
        connection.begin()  # closing rolls it back: a commit would fail on a damaged file
        check_tables(connection, str(path), tables)
        yield connection


@contextmanager
def alone(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[Connection]:
    """Open a writing connection, in one transaction, to a database that is not open in this process.

    Raises:
        StorageError: the file cannot be written.
    """
    with _engine(path, writing=True, busy_timeout_s=busy_timeout_s) as engine, engine.begin() as connection:
        yield connection


def writer_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a writing connection that durability depends on; this writes nothing.

    Raises:
        StorageError: the file cannot be opened.
    """
    with _engine(path, writing=True) as engine, closing(engine.raw_connection()) as connection:
        return durability_settings(connection.cursor())


@contextmanager
def _engine(path: Path, *, writing: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[Engine]:
    engine = sync_engine(path, busy_timeout_s, writing=writing)
    try:
        with translated(path):
            yield engine
    finally:
        engine.dispose()
