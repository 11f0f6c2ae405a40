"""Operations of SQLite on a whole file: its header, catalogue, integrity check, WAL and copies."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import DBAPICursor

from podledger.store.sqlite.bounded import bounded
from podledger.store.sqlite.engines import fetch, milliseconds, read_only_uri
from podledger.store.sqlite.errors import translated

APPLICATION_ID: Final = 0x706F646C
"""The application id in the header of podledger's databases: "podl"."""

BACKUP_PAGES: Final = 1_000
"""How many pages are copied between two reports of progress."""


def application_id(path: Path) -> int | None:
    """Return the application id of the SQLite file at `path`, or None if it is no such file or cannot be read."""
    if not path.is_file():
        return None
    try:
        with closing(bounded(path)(read_only_uri(path), uri=True)) as connection:
            return int(connection.execute("PRAGMA application_id").fetchone()[0])
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def application_id_of(connection: Connection) -> int:
    """Return the application id in the database's header."""
    return int(_pragma(connection, "main.application_id"))


def set_application_id(connection: Connection, number: int) -> None:
    """Write the application id into the database's header."""
    connection.exec_driver_sql(f"PRAGMA application_id = {number}")


def user_version_of(connection: Connection) -> int:
    """Return the user version in the database's header, which podledger leaves at 0."""
    return int(_pragma(connection, "main.user_version"))


def size_bytes(connection: Connection) -> int:
    """Return the size of the database in bytes, from its number of pages."""
    return int(_pragma(connection, "main.page_count")) * int(_pragma(connection, "main.page_size"))


def durability_settings(cursor: DBAPICursor) -> dict[str, Any]:
    """Return the pragmas that durability depends on, of a connection outside a transaction."""
    names = ("journal_mode", "synchronous", "recursive_triggers")
    return {name: _first(cursor, f"PRAGMA {name}") for name in names}


def table_names(connection: Connection) -> set[str]:
    """Return the names of the tables."""
    return {name for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").all()}


def named_objects(connection: Connection, names: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """Return the kind, the name in lower case and the SQL of the catalogue's objects of these names."""
    marks = ", ".join("?" * len(names))
    query = f"SELECT type, lower(name), sql FROM main.sqlite_master WHERE lower(name) IN ({marks})"
    return [(kind, name, sql) for kind, name, sql in connection.exec_driver_sql(query, tuple(names)).all()]


def schema_of(connection: Connection) -> dict[str, str]:
    """Return the SQL of every table, index, trigger and view, by kind and name."""
    rows = connection.exec_driver_sql("SELECT type || ' ' || name, sql FROM main.sqlite_master WHERE sql IS NOT NULL")
    return {str(name): str(sql) for name, sql in rows.all()}


def integrity_faults(connection: Connection, *, quick: bool = False, limit: int = 100) -> Iterator[str]:
    """Yield the faults that SQLite's own check finds in the file, at most `limit`; `quick` leaves the indexes out."""
    check = "quick_check" if quick else "integrity_check"
    for (fault,) in connection.exec_driver_sql(f"PRAGMA main.{check}({limit})"):
        if fault != "ok":
            yield str(fault)


def empty_wal(connection: Connection, busy_timeout_s: float, *, wait_s: float) -> bool:
    """Write the WAL into the database and truncate it; return False if readers did not let it within `wait_s`.

    While it waits for the readers of now, nothing is written, and new readers do not need the WAL.
    """
    fetch(connection, f"PRAGMA busy_timeout = {milliseconds(wait_s)}")
    try:
        ((blocked, *_),) = fetch(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        fetch(connection, f"PRAGMA busy_timeout = {milliseconds(busy_timeout_s)}")
    return not blocked


def finalize(path: Path, application_id: int = APPLICATION_ID) -> None:
    """Make the database at `path` one file without a WAL, which can be read where nothing can be written.

    Raises:
        StorageError: another process has it open.
    """
    with translated(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(f"PRAGMA application_id = {application_id}")


def copy_database(
    source: Path, target: Path, busy_timeout_s: float, progress: Callable[[int, int], None] | None = None
) -> None:
    """Copy one snapshot of the database at `source` into the empty file `target`.

    `progress` is called with the pages that are done and their total.

    Raises:
        StorageError: a file cannot be read or written.
    """

    def on_pages(_: int, remaining: int, total: int) -> None:
        if progress:
            progress(total - remaining, total)

    options: dict[str, Any] = {"uri": True, "timeout": busy_timeout_s, "isolation_level": None}
    with (
        translated(source),
        closing(sqlite3.connect(read_only_uri(source), **options)) as here,
        closing(sqlite3.connect(target)) as there,
    ):
        here.execute("BEGIN")
        here.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot begins with the first read
        here.backup(there, pages=BACKUP_PAGES, progress=on_pages)


def _pragma(connection: Connection, name: str) -> Any:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def _first(cursor: DBAPICursor, statement: str) -> Any:
    cursor.execute(statement)
    return (cursor.fetchone() or (None,))[0]
