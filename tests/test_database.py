"""The database file: its permissions, which files are accepted, how it is opened, and the translation of errors."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table, bindparam, literal, select, update

import podledger
from podledger.core.errors import DamagedError, LedgerNotFoundError, SchemaError, StorageError, UsageError
from podledger.integrity.coverage import coverage_of
from podledger.ledger import Ledger
from podledger.store import log
from podledger.store.connections import Engines, read_only
from podledger.store.database import Database, locate
from podledger.store.driver import HotStatement, insert_rows
from podledger.store.schema import SCHEMA_HEAD, identify, prepare
from podledger.store.sqlite.errors import translated
from podledger.store.sqlite.files import APPLICATION_ID
from podledger.store.tables import ledgers, pods
from tests.support import OWNER, connected, memory, new_database, turned


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Permissions


@pytest.mark.usefixtures("open_umask")
async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
        await ledger.append(turned("p"))
        modes = {path.name: mode(path) for path in tmp_path.iterdir()}
        assert modes == {"l.db": 0o600, "l.db-wal": 0o600, "l.db-shm": 0o600}


async def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Otherwise anyone who can write to the folder could have a ledger created in place of another file."""
    victim = tmp_path / "victim"
    (tmp_path / "l.db").symlink_to(victim)
    with pytest.raises(StorageError) as caught:
        prepare(tmp_path / "l.db", create=True)
    assert "link" in caught.value.hint
    assert not victim.exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_folder_and_pipe_are_refused(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "l.db")
    with pytest.raises((StorageError, LedgerNotFoundError)):
        prepare(tmp_path / "l.db", create=False)


@pytest.mark.parametrize("create", [False, True])
def test_folder_is_refused_with_and_without_create(tmp_path: Path, create: bool) -> None:
    with pytest.raises(StorageError, match="is a folder"):
        prepare(tmp_path, create=create)


def test_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "l.db"))
        with pytest.raises(StorageError):
            prepare(tmp_path / "l.db", create=True)


# Which files are accepted


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "content", [b"not a database\n" * 100, b"x", b"a short note\n" * 9, b"SQLite format 3\x00" + b"x" * 200]
)
def test_file_that_is_no_database_is_refused_unchanged(content: bytes, create: bool, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        prepare(path, create=create)
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


@pytest.mark.parametrize("create", [True, False])
def test_foreign_database_is_refused_unchanged(create: bool, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with connected(path) as other:
        other.execute("CREATE TABLE events (mine)")
    before = path.read_bytes()
    with pytest.raises(DamagedError, match="no podledger database"):
        prepare(path, create=create)
    assert path.read_bytes() == before


def test_foreign_alembic_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with connected(path) as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("INSERT INTO alembic_version VALUES ('8f3a')")
    with pytest.raises((DamagedError, SchemaError)):
        prepare(path, create=True)


def test_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "l.db").touch()
    prepare(tmp_path / "l.db", create=True)
    assert identify(tmp_path / "l.db").revision == SCHEMA_HEAD


def test_newer_schema_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    with connected(path) as future:
        future.execute("UPDATE alembic_version SET version_num = '9999'")
    for create in (True, False):
        with pytest.raises(SchemaError, match="newer") as caught:
            prepare(path, create=create)
        assert "update" in caught.value.hint


def test_older_schema_is_refused_without_create(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.touch()
    with pytest.raises(SchemaError, match="older") as caught:
        prepare(path, create=False)
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("version", [None, "", "0000", "0001x"])
def test_unknown_revision_is_refused(version: str | None, tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    with connected(path) as stranger:
        stranger.execute("DELETE FROM alembic_version")
        if version is not None:
            stranger.execute("INSERT INTO alembic_version VALUES (?)", (version,))
    for create in (True, False):
        with pytest.raises((SchemaError, DamagedError)) as caught:
            prepare(path, create=create)
        assert caught.value.hint
        assert "None" not in caught.value.message


def test_header_holds_the_application_id(tmp_path: Path) -> None:
    header = new_database(tmp_path / "l.db").read_bytes()[:100]
    assert header[68:72] == b"podl" == APPLICATION_ID.to_bytes(4)


@pytest.mark.parametrize("target", ["postgresql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "://", "x://y"])
def test_unusable_url_is_refused_without_its_password(target: str) -> None:
    with pytest.raises(UsageError) as caught:
        locate(target)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


# Opening and closing


async def test_writer_is_durable_and_readers_cannot_write(tmp_path: Path) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "recursive_triggers", "query_only", "trusted_schema")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    opened = await Database.open(new_database(tmp_path / "l.db"), coverage_of, create=False)
    assert await opened.write(pragmas) == ["wal", 2, 1, 0, 0]
    with pytest.raises(StorageError, match="read-only"):
        await opened.read(lambda connection: connection.exec_driver_sql("CREATE TABLE x (y)"))
    await opened.close()


async def test_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    opened = await Database.open(new_database(tmp_path / "l.db"), coverage_of, create=False)

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO consumers VALUES ('l', 'c', 1, 1, '')")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await opened.write(work)
    assert await opened.read(lambda connection: connection.exec_driver_sql("SELECT * FROM consumers").all()) == []
    assert await opened.write(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
    await opened.close()


async def test_write_lock_is_held_from_the_start(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    opened = await Database.open(path, coverage_of, create=False)

    def work(_: Connection) -> None:
        with connected(path) as other:
            other.execute("PRAGMA busy_timeout = 0")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")

    await opened.write(work)
    await opened.close()


async def test_close_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    others = {thread.name for thread in threading.enumerate()}
    for _ in range(5):
        async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
            await ledger.append(turned("p"))
            await ledger.verify()
            await ledger.rebuild()
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # noqa: PTH208 - the listing itself is one
    own = {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
    assert own <= others


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The databases to which SQLAlchemy and aiosqlite connect."""
    made: list[str] = []

    def connect(database: str, *args: Any, **options: Any) -> sqlite3.Connection:
        made.append(str(database))
        return plain(database, *args, **options)

    plain: Callable[..., sqlite3.Connection] = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", connect)
    return made


@pytest.mark.parametrize("create", [True, False])
async def test_opening_a_ledger_connects_twice(tmp_path: Path, connects: list[str], create: bool) -> None:
    """Once to identify the file, and once for the first question, on a connection that is kept."""
    async with Ledger.open(tmp_path / "l.db", OWNER):
        pass
    connects.clear()
    async with Ledger.open(tmp_path / "l.db", OWNER, create=create) as ledger:
        assert len(connects) == 2
        await ledger.pods()
        assert len(connects) == 2


async def test_failed_opening_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(LedgerNotFoundError):
        await Ledger.open(path, "nobody", create=False).__aenter__()
    assert not [name for name in os.listdir("/proc/self/fd") if names_file(name, path)]  # noqa: PTH208
    own = {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}
    assert own <= before


def names_file(descriptor: str, path: Path) -> bool:
    try:
        return Path("/proc/self/fd", descriptor).readlink().name.startswith(path.name)
    except OSError:
        return False


async def test_close_closes_the_writer_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = await Database.open(new_database(tmp_path / "l.db"), coverage_of, create=False)
    await opened.write(lambda connection: connection.exec_driver_sql("SELECT 1").scalar())

    async def fail(_: Engines) -> None:
        raise StorageError("the readers cannot be closed")

    monkeypatch.setattr(Engines, "dispose", fail)
    with pytest.raises(StorageError, match="readers"):
        await opened.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("podledger-writer")]


def test_read_only_connection_is_one_snapshot(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    with read_only(path) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM consumers").scalar() == 0
        with connected(path) as writer:
            writer.execute("INSERT INTO consumers VALUES ('l', 'c', 1, 1, '')")
        assert connection.exec_driver_sql("SELECT count(*) FROM consumers").scalar() == 0
    with pytest.raises(StorageError, match="read-only"), read_only(path) as connection:
        connection.exec_driver_sql("DELETE FROM consumers")


# Statements


def test_hot_statement_binds_its_values_and_constants_in_order() -> None:
    statement = HotStatement(
        select(ledgers.c.name, literal("fixed"), bindparam("later")).where(
            ledgers.c.name.in_([bindparam("second"), bindparam("first")])
        )
    )
    with memory() as connection:
        log.make_ledger(connection, "one", 0)
        values = {"first": "one", "second": "two", "later": 3}
        assert statement.fetch(connection, values) == list(statement.pages(connection, values)) == [("one", "fixed", 3)]


def test_hot_update_takes_its_columns_then_its_key() -> None:
    change = update(pods).where(pods.c.pod_name == bindparam("name"))
    statement = HotStatement(change, ["newest", "status"])
    with memory() as connection:
        insert_rows(connection, pods, [("l", "a", None, "open", 1), ("l", "b", None, "open", 2)])
        statement.run_many(connection, [("i1", "closed", "b"), ("i2", "lost", "a")])
        assert rows_of(connection, pods) == [("l", "a", "i2", "lost", 1), ("l", "b", "i1", "closed", 2)]


def test_hot_update_refuses_columns_in_another_order() -> None:
    statement = HotStatement(update(pods), ["status", "newest"])
    with memory() as connection, pytest.raises(AssertionError, match="newest"):
        statement.run_many(connection, [("open", "i1")])


@pytest.mark.parametrize("count", [1, 120])
def test_rows_with_the_same_key_are_replaced(count: int) -> None:
    first = [("l", f"{number:03}", "i", "open", number) for number in range(count)]
    second = [("l", f"{number:03}", None, "closed", None) for number in range(count)]
    with memory() as connection:
        insert_rows(connection, pods, first)
        insert_rows(connection, pods, second, replace=True)
        assert rows_of(connection, pods) == second


def rows_of(connection: Connection, table: Table) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]


DIALECT = re.compile(r"PRAGMA |sqlite_master|json_each|\browid\b|strftime|\bIS \?|\btotal\(|exec_driver_sql")


@pytest.mark.parametrize("package", ["store", "queries"])
def test_only_the_sqlite_package_states_sqlite_s_sql(package: str) -> None:
    for path in (Path(podledger.__file__).parent / package).rglob("*.py"):
        if path.parent.name != "sqlite":
            assert not DIALECT.search(path.read_text()), path


# The driver's errors


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("SQLITE_BUSY", StorageError),
        ("SQLITE_BUSY_SNAPSHOT", StorageError),
        ("SQLITE_FULL", StorageError),
        ("SQLITE_READONLY_DBMOVED", StorageError),
        ("SQLITE_IOERR_FSYNC", StorageError),
        ("SQLITE_CANTOPEN_ISDIR", StorageError),
        ("SQLITE_CORRUPT_INDEX", DamagedError),
        ("SQLITE_NOTADB", DamagedError),
        ("SQLITE_SOMETHING_NEW", StorageError),
    ],
)
def test_driver_errors_are_translated_with_cause_and_hint(code: str, kind: type[StorageError]) -> None:
    error = sqlite3.OperationalError("why")
    error.sqlite_errorname = code
    with pytest.raises(kind) as caught, translated(Path("l.db")):
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
    assert caught.value.hint
    assert "l.db" in caught.value.message


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(KeyError), translated(Path("l.db")):
        raise KeyError("mine")


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_unwritable_database_is_reported(tmp_path: Path, mode: int) -> None:
    """In a child process that runs as nobody, since root can write anything."""
    (tmp_path / "inside").mkdir()
    path = new_database(tmp_path / "inside" / "l.db")
    path.chmod(0o444)
    path.parent.chmod(mode)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import os, sys, asyncio\n"
        "from podledger.core.errors import StorageError\n"
        "from podledger.ledger import Ledger\n"
        "async def main():\n"
        "    async with Ledger.open(sys.argv[1], 'root'): pass\n"
        "os.getuid() or os.setuid(65534)\n"
        "try: asyncio.run(main())\n"
        "except StorageError as error: print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert str(path) in done.stdout
    assert "check" in done.stdout
