"""The database: its file, its engines, its schema, and the one place where driver errors become podledger's.

One connection writes and checkpoints per process, on a thread of its own to which a transaction goes whole. Readers
open the file read-only, over aiosqlite.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from podledger.errors import DamagedError, LedgerNotFoundError, ReadOnlyError, SchemaError, StorageError, UsageError

SCHEMA_HEAD: Final = "0002"
"""The newest migration; a ledger of this revision opens with one SELECT."""

APPLICATION_ID: Final = 0x706F646C
"""What marks a SQLite file as podledger's: "podl" in its header."""

BUNDLE_ID: Final = 0x706F6462
"""What marks a bundle, a slice of a ledger for reading only: "podb"."""

BUSY_TIMEOUT_S: Final = 5.0
READERS: Final = 4
LARGE_WAL_BYTES: Final = 16 << 20
"""A WAL of this size is emptied as soon as its readers let it be."""

TRIM_MS: Final = 200
"""How long readers are waited for then."""

_MIGRATING = threading.Lock()

T = TypeVar("T")


def locate(target: str | os.PathLike[str]) -> Path:
    """The file that a path or a SQLAlchemy URL names.

    Raises:
        UsageError: it names no SQLite file.
    """
    text = os.fspath(target)
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
    """

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = path
        self.is_bundle = is_bundle(path)
        self._busy_timeout_s = busy_timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podledger-writer")
        self._writer = _engine(path, busy_timeout_s, writing=True)
        self._connection: Connection | None = None
        self._trim_at = LARGE_WAL_BYTES
        self._readers = _reader_engine(path, busy_timeout_s)

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

    async def write(self, work: Callable[[Connection], T], *, after: Callable[[T], None] | None = None) -> T:
        """Run `work` in one transaction that holds the write lock from its first moment; return after the commit.

        `after` is called with the result on the same thread, before the next transaction begins.

        Raises:
            ReadOnlyError: it is a bundle.
        """
        self.check_writable()
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, work, after)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one snapshot of the database, read-only."""
        with translated(self.path):
            async with self._readers.connect() as connection:
                return await connection.run_sync(work)

    def check_writable(self) -> None:
        """See that the database may be written.

        Raises:
            ReadOnlyError: it is a bundle.
        """
        if self.is_bundle:
            hint = "read it with `events`, `pods`, `verify` and the like; to go on, use the ledger that it is from"
            raise ReadOnlyError(f"{self.path} is a bundle, which is for reading only", hint=hint)

    async def close(self) -> None:
        """Close every connection; the writer's last, so that it leaves one file behind."""
        await self._readers.dispose()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _write(self, work: Callable[[Connection], T], after: Callable[[T], None] | None) -> T:
        with translated(self.path):
            try:
                if self._connection is None:
                    self._connection = self._writer.connect()
                with self._connection.begin():
                    done = work(self._connection)
            except (DBAPIError, sqlite3.Error):
                self._disconnect()
                raise
        if after is not None:
            after(done)
        self._trim_wal(self._connection)
        return done

    def _trim_wal(self, connection: Connection) -> None:
        """Empty a WAL that has grown large: where reading never pauses, SQLite's own checkpoints never get to its end.

        What was committed stays so if this fails; it is then tried again when the WAL has grown as much once more.
        """
        size = _size(self.path.with_name(f"{self.path.name}-wal"))
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def prepare(path: Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """See that a database of the current schema is at `path`, or with `create` make it so.

    Raises:
        LedgerNotFoundError: there is none, and none is to be made.
        SchemaError: it is of another version.
        StorageError: it cannot be opened.
    """
    if create and not is_bundle(path):
        _create_file(path)
    elif not path.is_file():
        raise LedgerNotFoundError(f"there is no database at {path}", hint="make one with `podledger init NAME`")
    _check_header(path)
    _roll_back(path)
    revision = schema_revision(path)
    if revision == SCHEMA_HEAD:
        return
    if revision is not None and revision > SCHEMA_HEAD:
        reason = f"{path} has schema {revision}, newer than this podledger's {SCHEMA_HEAD}"
        raise SchemaError(reason, hint="update podledger")
    if is_bundle(path):
        reason = f"{path} is a bundle of schema {revision}, and this podledger's is {SCHEMA_HEAD}"
        raise SchemaError(reason, hint="read it with the podledger that made it, or with its own verifier and sqlite3")
    if not create:
        reason = f"{path} has schema {revision or 'none'}, older than this podledger's {SCHEMA_HEAD}"
        raise SchemaError(reason, hint="upgrade it with `podledger init NAME`")
    if revision is not None and not any((migrations_folder() / "versions").glob(f"{revision or '-'}_*.py")):
        raise DamagedError(f"{path} names a schema revision that never was: {revision!r}", hint=_DAMAGED_HINT)
    _upgrade(path, busy_timeout_s)


def _check_header(path: Path) -> None:
    """Refuse a file of a few bytes, which SQLite would take for an empty one; of a larger one it looks at the header.

    Neither here nor elsewhere is a database opened but by SQLite: to close the file drops every lock that this process
    has on it, and then another process may take the WAL away from under an open ledger.
    """
    if 0 < path.stat().st_size < _LEAST_BYTES:
        raise DamagedError(f"{path} is damaged, or is no podledger database", hint=_DAMAGED_HINT)


def is_bundle(path: Path) -> bool:
    """Whether the file at `path` says of itself that it is a bundle."""
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(read_only_uri(path), uri=True)) as connection:
            return bool(connection.execute("PRAGMA application_id").fetchone()[0] == BUNDLE_ID)
    except (sqlite3.Error, UnicodeDecodeError):
        return False


def check_whole(path: Path) -> None:
    """See that the database at `path` holds whole logs.

    Raises:
        UsageError: it is a bundle.
    """
    if is_bundle(path):
        raise UsageError(f"{path} is a bundle, which holds no whole log", hint="use the ledger that it is from")


def schema_revision(path: Path) -> str | None:
    """The migration that the database at `path` is at, None if it has none.

    Raises:
        StorageError: it cannot be read.
    """
    with translated(path), _engine(path, BUSY_TIMEOUT_S, writing=False).connect() as connection:
        tables = {name for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master")}
        if "alembic_version" not in tables:
            if tables:
                raise DamagedError(f"{path} is no podledger database", hint="give another --db")
            return None
        revisions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
        if len(revisions) != 1:
            raise DamagedError(f"{path} names {len(revisions)} schema revisions, and not one", hint=_DAMAGED_HINT)
        return str(revisions[0])


def _roll_back(path: Path) -> None:
    """Undo what a process left half done that died before the database had its WAL: a reader may not."""
    if path.with_name(f"{path.name}-journal").exists():
        writer_settings(path)


def migrations_folder() -> Path:
    """Where the migrations are: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def upgrade_to(connection: Connection, revision: str = "head") -> None:
    """Run the migrations up to `revision` inside the connection's transaction."""
    from alembic import command

    command.upgrade(_alembic_config(connection), revision)


def downgrade_to(connection: Connection, revision: str) -> None:
    """Run the migrations down to `revision` inside the connection's transaction."""
    from alembic import command

    command.downgrade(_alembic_config(connection), revision)


@contextmanager
def read_only(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Iterator[Connection]:
    """A read-only connection of its own, on one snapshot, free to make temporary tables; usable from any thread."""
    engine = _engine(path, busy_timeout_s, writing=False)
    with translated(path), engine.connect() as connection:
        yield connection
    engine.dispose()


def writer_settings(path: Path) -> dict[str, Any]:
    """What the pragmas that durability hangs on are on a writing connection; it writes nothing.

    Raises:
        StorageError: the file cannot be opened.
    """
    engine = _engine(path, BUSY_TIMEOUT_S, writing=True)
    with translated(path):
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            names = ("journal_mode", "synchronous", "recursive_triggers")
            return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
        finally:
            connection.close()


@contextmanager
def alone(path: Path) -> Iterator[Connection]:
    """A writing connection, in one transaction, to a database that is being made and nobody else knows."""
    engine = _engine(path, BUSY_TIMEOUT_S, writing=True)
    with translated(path), engine.begin() as connection:
        yield connection
    engine.dispose()


def settle(path: Path, application_id: int = APPLICATION_ID) -> None:
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
        raise DamagedError(f"{path} is damaged: its text is no UTF-8", hint=_DAMAGED_HINT) from error


_LEAST_BYTES: Final = 512
_MEANINGS: Final = {
    "SQLITE_BUSY": ("another process holds the lock", "try again, or find the process that holds it"),
    "SQLITE_LOCKED": ("another process holds the lock", "try again, or find the process that holds it"),
    "SQLITE_FULL": ("the disk is full", "make room; nothing that was acknowledged is lost"),
    "SQLITE_READONLY": ("it is read-only", "check the permissions of the file and its folder"),
    "SQLITE_CANTOPEN": ("it cannot be opened", "check that its folder exists and may be read and written"),
    "SQLITE_PERM": ("it may not be opened", "check the permissions of the file and its folder"),
    "SQLITE_IOERR": ("the disk failed to read or write", "check the disk, then run `podledger verify`"),
}
_DAMAGED_HINT: Final = "run `podledger verify`; restore a backup, or save what holds with `podledger salvage`"
_DAMAGED: Final = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT", "SQLITE_SCHEMA", "SQLITE_MISMATCH"}


def _storage_error(path: Path, cause: BaseException | None) -> StorageError:
    name = str(getattr(cause, "sqlite_errorname", ""))
    family = "_".join(name.split("_")[:2])
    if family in _DAMAGED:
        return DamagedError(f"{path} is damaged, or is no podledger database: {cause}", hint=_DAMAGED_HINT)
    reason, hint = _MEANINGS.get(family, (str(cause), "run `podledger verify`"))
    return StorageError(f"{path}: {reason} ({name or type(cause).__name__})", hint=hint)


def _create_file(path: Path) -> None:
    """Make an empty file that its owner alone may read and write; SQLite gives its WAL the same mode."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    hint = "check that its folder exists and may be written, and that it is no symbolic link"
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path} is no file", hint=hint) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be made: {error.strerror}", hint=hint) from error
    else:
        os.fchmod(descriptor, 0o600)  # an umask may have taken our own right to it
        os.close(descriptor)


def _upgrade(path: Path, busy_timeout_s: float) -> None:
    engine = _engine(path, busy_timeout_s, writing=True)
    with _MIGRATING, translated(path), engine.begin() as connection:
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        upgrade_to(connection)
    engine.dispose()


def _alembic_config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _engine(path: Path, busy_timeout_s: float, *, writing: bool) -> Engine:
    url = _url("sqlite", path, writing=writing)
    engine = create_engine(url, poolclass=NullPool, connect_args={"check_same_thread": False})
    _configure(engine, busy_timeout_s, writing=writing)
    return engine


def _reader_engine(path: Path, busy_timeout_s: float) -> AsyncEngine:
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
        connection.connection.cursor().execute(begin)
