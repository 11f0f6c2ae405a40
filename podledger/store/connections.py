"""Connections to the file: how each is configured, and the one place where driver errors become podledger's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from podledger.core.errors import DAMAGED_HINT, DamagedError, StorageError
from podledger.store.driver import begin

APPLICATION_ID: Final = 0x706F646C
"""What marks a SQLite file as podledger's: "podl" in its header."""

BUSY_TIMEOUT_S: Final = 5.0

READERS: Final = 4


@contextmanager
def read_only(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[Connection]:
    """A read-only connection of its own, on one snapshot, free to make temporary tables; usable from any thread."""
    engine = engine_of(path, busy_timeout_s, writing=False)
    try:
        with translated(path), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def writer_settings(path: Path) -> dict[str, Any]:
    """What the pragmas that durability hangs on are on a writing connection; it writes nothing.

    Raises:
        StorageError: the file cannot be opened.
    """
    engine = engine_of(path, BUSY_TIMEOUT_S, writing=True)
    try:
        with translated(path), closing(engine.raw_connection()) as connection:
            cursor = connection.cursor()
            names = ("journal_mode", "synchronous", "recursive_triggers")
            return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
    finally:
        engine.dispose()


@contextmanager
def alone(path: Path) -> Iterator[Connection]:
    """A writing connection, in one transaction, to a database that is being made and nobody else knows."""
    engine = engine_of(path, BUSY_TIMEOUT_S, writing=True)
    try:
        with translated(path), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def finalize(path: Path, application_id: int = APPLICATION_ID) -> None:
    """Let the database be one file, which can be read where nothing can be written.

    Raises:
        StorageError: someone else has it open.
    """
    with translated(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA application_id = {application_id}")


def read_only_uri(path: Path) -> str:
    """The URI by which SQLite opens the file at `path` for reading only."""
    return f"file:{quote(str(path.absolute()))}?mode=ro"


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the driver's errors into podledger's, the cause kept."""
    try:
        yield
    except DBAPIError as error:
        raise _storage_error(path, error.orig) from error
    except sqlite3.Error as error:
        raise _storage_error(path, error) from error
    except UnicodeDecodeError as error:  # the driver fails so on a message that quotes a damaged schema
        raise DamagedError(f"{path} is damaged: its text is no UTF-8", hint=DAMAGED_HINT) from error


_MEANINGS: Final = {
    "SQLITE_BUSY": ("another process holds the lock", "try again, or find the process that holds it"),
    "SQLITE_LOCKED": ("another process holds the lock", "try again, or find the process that holds it"),
    "SQLITE_FULL": ("the disk is full", "make room; nothing that was acknowledged is lost"),
    "SQLITE_READONLY": ("it is read-only", "check the permissions of the file and its folder"),
    "SQLITE_CANTOPEN": ("it cannot be opened", "check that it and its folder are there, and may be read and written"),
    "SQLITE_PERM": ("it may not be opened", "check the permissions of the file and its folder"),
    "SQLITE_IOERR": ("the disk failed to read or write", "check the disk, then run `podledger verify`"),
}

_DAMAGED: Final = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_SCHEMA", "SQLITE_MISMATCH"}


def _storage_error(path: Path, cause: BaseException | None) -> StorageError:
    name = str(getattr(cause, "sqlite_errorname", ""))
    family = "_".join(name.split("_")[:2])
    if family in _DAMAGED:
        return DamagedError(f"{path} is damaged, or is no podledger database: {cause}", hint=DAMAGED_HINT)
    reason, hint = _MEANINGS.get(family, (str(cause), "run `podledger verify`"))
    return StorageError(f"{path}: {reason} ({name or type(cause).__name__})", hint=hint)


def engine_of(path: Path, busy_timeout_s: float, *, writing: bool) -> Engine:
    """An engine whose connections are new each time, and usable from any thread."""
    url = _url("sqlite", path, writing=writing)
    engine = create_engine(url, poolclass=NullPool, connect_args={"check_same_thread": False})
    _configure(engine, busy_timeout_s, writing=writing)
    return engine


def readers_of(path: Path, busy_timeout_s: float) -> AsyncEngine:
    """An engine with a few read-only connections, over aiosqlite."""
    engine = create_async_engine(_url("sqlite+aiosqlite", path, writing=False), pool_size=READERS, max_overflow=0)
    _configure(engine.sync_engine, busy_timeout_s, writing=False)
    return engine


def _url(driver: str, path: Path, *, writing: bool) -> URL:
    mode = "rw" if writing else "ro"
    return URL.create(driver, database=f"file:{quote(str(path.absolute()))}", query={"mode": mode, "uri": "true"})


def _configure(engine: Engine, busy_timeout_s: float, *, writing: bool) -> None:
    pragmas = [f"busy_timeout = {int(busy_timeout_s * 1000)}", "trusted_schema = OFF", "cell_size_check = ON"]
    if writing:
        pragmas += [
            "journal_mode = WAL",
            "synchronous = FULL",
            "recursive_triggers = ON",
            "foreign_keys = ON",
        ]
        pragmas += [f"journal_size_limit = {64 << 20}"]
    statement = "BEGIN IMMEDIATE" if writing else "BEGIN"

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        begin(connection, statement)
