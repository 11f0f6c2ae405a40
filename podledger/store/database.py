"""The open database: its two kinds of engine, the thread that writes, and the one place that closes them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError

from podledger.core.errors import ReadOnlyError, StorageError, UsageError
from podledger.store.connections import BUSY_TIMEOUT_S, Engines
from podledger.store.coverage import USE_SOURCE, WHOLE_LOG, Coverage
from podledger.store.schema import prepare
from podledger.store.sqlite.errors import DRIVER_ERRORS, storage_error, translated
from podledger.store.sqlite.files import empty_wal

EMPTY_WAL_BYTES: Final = 16 << 20
"""The size in bytes at which the writer empties the WAL."""

LARGE_WAL_BYTES: Final = 256 << 20
"""The size in bytes at which the writer waits until the readers that keep the WAL have ended."""

READER_GENERATIONS: Final = 3
"""How many busy timeouts that may take: overlapping readers share their marks in the WAL, so a later one can keep an
earlier mark."""

CHECKPOINT_WAIT_S: Final = 0.2
"""How long the writer waits for readers below that size."""

T = TypeVar("T")


def locate(target: str | os.PathLike[str]) -> Path:
    """Return the file that a path or a SQLAlchemy URL names.

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
    """An open database. Open it with `open`; `close` closes every connection, also after an error.

    `read` runs a query on the async engine. `write` runs a transaction on the writer's thread, and `run_job` a
    job that reads a whole log, each on a sync engine. All three take a function of a sync SQLAlchemy connection.

    `path` is the path as it was given; `place` is absolute, so that the process may change its folder.
    """

    def __init__(self, path: Path, coverage: Coverage, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        self.place = path.absolute()
        self.coverage = coverage
        self._busy_timeout_s = busy_timeout_s
        self._engines = Engines(path, busy_timeout_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podledger-writer")
        self._writer: Connection | None = None
        self._file = _identity(self.place)
        self._empty_wal_at = EMPTY_WAL_BYTES
        self._wait_longer_at = LARGE_WAL_BYTES

    @classmethod
    async def open(
        cls,
        target: str | os.PathLike[str],
        coverage_of: Callable[[Path], Coverage],
        *,
        create: bool,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Database:
        """Open the database that `target` names; `create` makes one if there is none, and upgrades an older one.

        `coverage_of` returns how much of its ledgers' logs a database holds that is not an ordinary one.

        Raises:
            LedgerNotFoundError: there is no such database, and `create` is false.
            SchemaError: it is of another version.
            StorageError: it cannot be opened.
        """
        path = locate(target)
        found = await asyncio.to_thread(prepare, path, create=create, busy_timeout_s=busy_timeout_s)
        is_usual = found.application_id == WHOLE_LOG.application_id  # most databases need no second look
        coverage = WHOLE_LOG if is_usual else await asyncio.to_thread(coverage_of, path)
        return cls(path, coverage, busy_timeout_s=busy_timeout_s)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction that holds the write lock from its start; return after the commit.

        Raises:
            ReadOnlyError: the database does not hold whole logs.
            StorageError: nothing was committed.
        """
        self.check_writable()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the database, read-only."""
        with translated(self.path):
            async with self._engines.questions.connect() as connection:
                return await connection.run_sync(_on_snapshot, work)

    async def run_job(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the database, on another thread: for a job that reads a whole log."""

        def job() -> T:
            with self.snapshot() as connection:
                return work(connection)

        return await asyncio.to_thread(job)

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Open a read-only connection for a job; it works on any thread, and may make temporary tables."""
        with translated(self.path), self._engines.jobs.connect() as connection:
            connection.begin()
            yield connection

    def check_writable(self) -> None:
        """Check that the database can be written.

        Raises:
            ReadOnlyError: it does not hold whole logs.
            StorageError: its file was removed or replaced, or this process may not write it.
        """
        if not self.coverage.is_whole:
            raise ReadOnlyError(f"{self.path} is read-only: it is {self.coverage.describe()}", hint=USE_SOURCE)
        if _identity(self.place) != self._file:  # SQLite would go on writing to a file without a name
            reason = f"{self.path} was removed or replaced while it was open"
            raise StorageError(reason, hint="put the file back, or open the one that is there now")
        if not os.access(self.place, os.W_OK):
            raise StorageError(f"{self.path} is read-only", hint="check the permissions of the file and its folder")

    async def close(self) -> None:
        """Close every connection: the writer's last, so that it leaves one file."""
        try:
            await self._engines.dispose()
        finally:
            with self._thread:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)

    def _write(self, work: Callable[[Connection], T]) -> T:
        try:
            if self._writer is None:
                self._writer = self._engines.writer.connect()
            with self._writer.begin():
                done = work(self._writer)
        except DRIVER_ERRORS as error:
            self._disconnect()
            raise storage_error(self.path, error) from error
        self._empty_wal(self._writer)
        return done

    def _empty_wal(self, writer: Connection) -> None:
        """Empty a WAL that has grown large: with readers at all times, SQLite's own checkpoints never reach its end.

        Commits are kept if this fails; the next attempt is when the WAL has grown by as much again.
        """
        with suppress(OSError, sqlite3.Error):
            size = os.stat(f"{self.place}-wal").st_size  # noqa: PTH116 - after each commit, and a path takes longer
            if size >= self._empty_wal_at:
                self._empty_wal_at = size + EMPTY_WAL_BYTES
                is_large = size >= self._wait_longer_at
                if is_large:  # once for each doubling, so that a reader that never ends seldom delays a commit
                    self._wait_longer_at = 2 * size
                wait_s = READER_GENERATIONS * self._busy_timeout_s if is_large else CHECKPOINT_WAIT_S
                if empty_wal(writer, self._busy_timeout_s, wait_s=wait_s):
                    self._empty_wal_at, self._wait_longer_at = EMPTY_WAL_BYTES, LARGE_WAL_BYTES

    def _disconnect(self) -> None:
        connection, self._writer = self._writer, None
        if connection is not None:
            connection.close()


def _on_snapshot(connection: Connection, work: Callable[[Connection], T]) -> T:
    connection.begin()
    return work(connection)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
