"""The open database: one connection writes and checkpoints, on a thread of its own; readers go over aiosqlite."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from podledger.core.errors import ReadOnlyError, StorageError, UsageError
from podledger.store.connections import BUSY_TIMEOUT_S, engine_of, readers_of, translated
from podledger.store.schema import is_bundle, prepare

LARGE_WAL_BYTES: Final = 16 << 20
"""A WAL of this size is emptied as soon as its readers let it be."""

TRIM_MS: Final = 200
"""How long readers are waited for then."""

T = TypeVar("T")


def locate(target: str | os.PathLike[str]) -> Path:
    """The file that a path or a SQLAlchemy URL names.

    Raises:
        UsageError: it names no SQLite file.
    """
    text = os.fspath(target)
    if not text:
        raise UsageError("the name of the database is empty", hint="give a path, or sqlite:///PATH")
    if "://" not in text:
        return Path(text)
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise UsageError(f"{text!r} is no database URL", hint="give a path, or sqlite:///PATH") from error
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        hint = "this release keeps its ledgers in SQLite files: give a path, or sqlite:///PATH"
        raise UsageError(f"{url.render_as_string()} names no SQLite file", hint=hint)
    return Path(url.database)


class Database:
    """An open database: one writer, a few readers.

    Open it with `open`, and `close` it. `write` and `read` take a function of a synchronous SQLAlchemy connection.
    `path` is as it was given, `place` the same wherever the process goes.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        self.is_bundle = is_bundle(path)
        self._busy_timeout_s = busy_timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podledger-writer")
        self._writer = engine_of(path, busy_timeout_s, writing=True)
        self._connection: Connection | None = None
        self.place = path.absolute()
        self._file = _identity(self.place)
        self._trim_at = LARGE_WAL_BYTES
        self._readers = readers_of(path, busy_timeout_s)

    @classmethod
    async def open(
        cls, target: str | os.PathLike[str], *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> Database:
        """Open the database that `target` names; with `create`, make it if need be and bring it up to date.

        Raises:
            LedgerNotFoundError: there is none, and none is to be made.
            SchemaError: it is of another version.
            StorageError: it cannot be opened.
        """
        path = locate(target)
        await asyncio.to_thread(prepare, path, create=create, busy_timeout_s=busy_timeout_s)
        return cls(path, busy_timeout_s=busy_timeout_s)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that holds the write lock from its first moment; return after the commit.

        Raises:
            ReadOnlyError: it is a bundle.
        """
        self.check_writable()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the database, read-only."""
        with translated(self.path):
            async with self._readers.connect() as connection:
                return await connection.run_sync(work)

    def check_writable(self) -> None:
        """See that the database may be written.

        Raises:
            ReadOnlyError: it is a bundle.
            StorageError: its file was removed or replaced meanwhile, or this process may not write it.
        """
        if self.is_bundle:
            hint = "read it with `events`, `pods`, `verify` and the like; to go on, use the ledger that it is from"
            raise ReadOnlyError(f"{self.path} is a bundle, which is for reading only", hint=hint)
        self._check_in_place()
        if not os.access(self.place, os.W_OK):
            raise StorageError(f"{self.path} is read-only", hint="check the permissions of the file and its folder")

    async def close(self) -> None:
        """Close every connection; the writer's last, so that it leaves one file behind."""
        await self._readers.dispose()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _check_in_place(self) -> None:
        """See that what is written will be found at the path again: SQLite would go on with a file that has no name."""
        if _identity(self.place) != self._file:
            reason = f"{self.path} was removed or replaced while it was open"
            raise StorageError(reason, hint="put the file back, or open the one that is there now")

    def _write(self, work: Callable[[Connection], T]) -> T:
        with translated(self.path):
            try:
                if self._connection is None:
                    self._connection = self._writer.connect()
                with self._connection.begin():
                    done = work(self._connection)
            except (DBAPIError, sqlite3.Error):
                self._disconnect()
                raise
        self._trim_wal(self._connection)
        return done

    def _trim_wal(self, connection: Connection) -> None:
        """Empty a WAL that has grown large: where reading never pauses, SQLite's own checkpoints never get to its end.

        What was committed stays so if this fails; it is then tried again when the WAL has grown as much once more.
        """
        size = _size(self.place.with_name(f"{self.place.name}-wal"))
        if size < self._trim_at:
            return
        self._trim_at = size + LARGE_WAL_BYTES
        with suppress(sqlite3.Error):
            driver = connection.connection.cursor()
            driver.execute(f"PRAGMA busy_timeout = {TRIM_MS}")
            blocked, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            driver.execute(f"PRAGMA busy_timeout = {int(self._busy_timeout_s * 1000)}")
            driver.close()
            if not blocked:
                self._trim_at = LARGE_WAL_BYTES

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
