"""The file: who may read it, what is taken for one, and how the driver's errors become podledger's."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from podledger.core.errors import DamagedError, LedgerNotFoundError, SchemaError, StorageError, UsageError
from podledger.integrity.coverage import coverage_of
from podledger.ledger import Ledger
from podledger.store.connections import APPLICATION_ID, alone, read_only, translated
from podledger.store.database import Database, locate
from podledger.store.schema import SCHEMA_HEAD, prepare, schema_revision
from tests.support import OWNER, connected, new_database, turned


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Who may read it


@pytest.mark.usefixtures("open_umask")
async def test_its_owner_alone_may_read_it_and_what_lies_beside_it(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
        await ledger.append(turned("p"))
        modes = {path.name: mode(path) for path in tmp_path.iterdir()}
        assert modes == {"l.db": 0o600, "l.db-wal": 0o600, "l.db-shm": 0o600}


async def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Whoever may write the folder could else have a ledger made over another file."""
    victim = tmp_path / "victim"
    (tmp_path / "l.db").symlink_to(victim)
    with pytest.raises(StorageError) as caught:
        prepare(tmp_path / "l.db", create=True)
    assert "link" in caught.value.hint
    assert not victim.exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "l.db")
    with pytest.raises((StorageError, LedgerNotFoundError)):
        prepare(tmp_path / "l.db", create=False)


@pytest.mark.parametrize("create", [False, True])
def test_a_folder_is_refused(tmp_path: Path, create: bool) -> None:
    with pytest.raises(StorageError, match="is a folder"):
        prepare(tmp_path, create=create)


def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "l.db"))
        with pytest.raises(StorageError):
            prepare(tmp_path / "l.db", create=True)


# What is taken for one


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    "content", [b"not a database\n" * 100, b"x", b"a short note\n" * 9, b"SQLite format 3\x00" + b"x" * 200]
)
def test_a_file_that_is_no_database_is_refused_and_untouched(content: bytes, create: bool, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        prepare(path, create=create)
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


@pytest.mark.parametrize("create", [True, False])
def test_another_program_s_database_is_refused_and_untouched(create: bool, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with connected(path) as other:
        other.execute("CREATE TABLE events (mine)")
    before = path.read_bytes()
    with pytest.raises(DamagedError, match="no podledger database"):
        prepare(path, create=create)
    assert path.read_bytes() == before


def test_another_program_s_alembic_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with connected(path) as other:
        other.execute("CREATE TABLE alembic_version (version_num TEXT)")
        other.execute("INSERT INTO alembic_version VALUES ('8f3a')")
    with pytest.raises((DamagedError, SchemaError)):
        prepare(path, create=True)


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "l.db").touch()
    prepare(tmp_path / "l.db", create=True)
    assert schema_revision(tmp_path / "l.db") == SCHEMA_HEAD


def test_a_newer_schema_is_refused_with_the_mend(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    with connected(path) as future:
        future.execute("UPDATE alembic_version SET version_num = '9999'")
    for create in (True, False):
        with pytest.raises(SchemaError, match="newer") as caught:
            prepare(path, create=create)
        assert "update" in caught.value.hint


def test_an_older_schema_is_refused_with_the_mend_unless_it_may_be_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.touch()
    with pytest.raises(SchemaError, match="older") as caught:
        prepare(path, create=False)
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("version", [None, "", "0000", "0001x"])
def test_a_revision_that_never_was_is_a_named_error(version: str | None, tmp_path: Path) -> None:
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


def test_the_file_says_whose_it_is(tmp_path: Path) -> None:
    header = new_database(tmp_path / "l.db").read_bytes()[:100]
    assert header[68:72] == b"podl" == APPLICATION_ID.to_bytes(4)


@pytest.mark.parametrize("target", ["postgresql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "://", "x://y"])
def test_a_target_that_names_no_file_is_misuse_and_tells_no_password(target: str) -> None:
    with pytest.raises(UsageError) as caught:
        locate(target)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


# How it is opened


async def test_the_writer_is_durable_and_the_readers_cannot_write(tmp_path: Path) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "recursive_triggers", "query_only", "trusted_schema")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    opened = await Database.open(new_database(tmp_path / "l.db"), coverage_of, create=False)
    assert await opened.write(pragmas) == ["wal", 2, 1, 0, 0]
    with pytest.raises(StorageError, match="read-only"):
        await opened.read(lambda connection: connection.exec_driver_sql("CREATE TABLE x (y)"))
    await opened.close()


async def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    opened = await Database.open(new_database(tmp_path / "l.db"), coverage_of, create=False)

    def work(connection: Connection) -> None:
        connection.exec_driver_sql("INSERT INTO consumers VALUES ('l', 'c', 1, 1, '')")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await opened.write(work)
    assert await opened.read(lambda connection: connection.exec_driver_sql("SELECT * FROM consumers").all()) == []
    assert await opened.write(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
    await opened.close()


async def test_the_write_lock_is_held_from_the_first_moment(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    opened = await Database.open(path, coverage_of, create=False)

    def work(_: Connection) -> None:
        with connected(path) as other:
            other.execute("PRAGMA busy_timeout = 0")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")

    await opened.write(work)
    await opened.close()


async def test_closing_leaves_no_thread_and_no_open_file(tmp_path: Path) -> None:
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


def test_read_only_is_one_snapshot_that_cannot_write(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    with read_only(path) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM consumers").scalar() == 0
        with connected(path) as writer:
            writer.execute("INSERT INTO consumers VALUES ('l', 'c', 1, 1, '')")
        assert connection.exec_driver_sql("SELECT count(*) FROM consumers").scalar() == 0
    with pytest.raises(StorageError, match="read-only"), read_only(path) as connection:
        connection.exec_driver_sql("DELETE FROM consumers")


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
def test_every_driver_error_becomes_podledger_s_with_its_cause_and_a_hint(code: str, kind: type[StorageError]) -> None:
    error = sqlite3.OperationalError("why")
    error.sqlite_errorname = code
    with pytest.raises(kind) as caught, translated(Path("l.db")):
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
    assert caught.value.hint
    assert "l.db" in caught.value.message


def test_an_error_that_is_not_the_driver_s_passes() -> None:
    with pytest.raises(KeyError), translated(Path("l.db")):
        raise KeyError("mine")


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_disk_that_is_read_only_or_out_of_reach_is_told(tmp_path: Path, mode: int) -> None:
    """As another user, since root may write anything; a child process changes to nobody."""
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


@pytest.mark.parametrize("opened", [read_only, alone])
def test_engine_is_disposed_after_an_error(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Connection]]
) -> None:
    path, disposed = new_database(tmp_path / "l.db"), list[Engine]()
    listener = disposed.append
    event.listen(Engine, "engine_disposed", listener)
    try:
        with pytest.raises(StorageError), opened(path) as connection:
            connection.exec_driver_sql("SELECT nothing")
    finally:
        event.remove(Engine, "engine_disposed", listener)
    assert len(disposed) == 1
