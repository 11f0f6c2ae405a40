"""The schema of the file at a path: found out, made, brought up to date, or refused."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from podledger.core.errors import DAMAGED_HINT, DamagedError, LedgerNotFoundError, SchemaError, StorageError
from podledger.store.connections import (
    APPLICATION_ID,
    BUSY_TIMEOUT_S,
    engine_of,
    read_only_uri,
    translated,
    writer_settings,
)

SCHEMA_HEAD: Final = "0002"
"""The newest migration; a ledger of this revision opens with one SELECT."""

_LEAST_BYTES: Final = 512
"""The smallest file that can be a SQLite database: one page."""

_MIGRATING = threading.Lock()


def prepare(path: Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
    """See that a database of the current schema is at `path`, or with `create` make it so.

    Raises:
        LedgerNotFoundError: there is none, and none is to be made.
        SchemaError: it is of another version.
        StorageError: it cannot be opened.
    """
    try:
        is_folder = path.is_dir()
    except OSError as error:
        hint = "check that the folders above it may be entered"
        raise StorageError(f"{path} cannot be reached: {error.strerror}", hint=hint) from error
    if is_folder:
        raise StorageError(f"{path} is a folder, and no database", hint="give the path of the file itself")
    if create:
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
    if application_id(path) not in (0, APPLICATION_ID):
        reason = f"{path} has schema {revision}, older than this podledger's {SCHEMA_HEAD}, and cannot be upgraded"
        raise SchemaError(reason, hint="read it with the podledger that made it, or with sqlite3")
    if not create:
        reason = f"{path} has schema {revision or 'none'}, older than this podledger's {SCHEMA_HEAD}"
        raise SchemaError(reason, hint="upgrade it with `podledger init NAME`")
    if revision is not None and not any((migrations_folder() / "versions").glob(f"{revision or '-'}_*.py")):
        raise DamagedError(f"{path} names a schema revision that never was: {revision!r}", hint=DAMAGED_HINT)
    _upgrade(path, busy_timeout_s)


def _check_header(path: Path) -> None:
    """Refuse a file of a few bytes, which SQLite would take for an empty one; of a larger one it looks at the header.

    Neither here nor elsewhere is a database opened but by SQLite: to close the file drops every lock that this process
    has on it, and then another process may take the WAL away from under an open ledger.
    """
    if 0 < path.stat().st_size < _LEAST_BYTES:
        raise DamagedError(f"{path} is damaged, or is no podledger database", hint=DAMAGED_HINT)


def application_id(path: Path) -> int | None:
    """What the SQLite file at `path` says that it is; None if it is none, or cannot be read."""
    if not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(read_only_uri(path), uri=True)) as connection:
            return int(connection.execute("PRAGMA application_id").fetchone()[0])
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def application_id_of(connection: Connection) -> int:
    """Return the application id in the database's header."""
    return int(connection.exec_driver_sql("PRAGMA main.application_id").scalar_one())


def schema_revision(path: Path) -> str | None:
    """The migration that the database at `path` is at, None if it has none.

    Raises:
        StorageError: it cannot be read.
    """
    with translated(path), engine_of(path, BUSY_TIMEOUT_S, writing=False).connect() as connection:
        tables = {name for (name,) in connection.exec_driver_sql("SELECT name FROM sqlite_master")}
        if "alembic_version" not in tables:
            if tables:
                raise DamagedError(f"{path} is no podledger database", hint="give another --db")
            return None
        revisions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars().all()
        if len(revisions) != 1:
            raise DamagedError(f"{path} names {len(revisions)} schema revisions, and not one", hint=DAMAGED_HINT)
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
    engine = engine_of(path, busy_timeout_s, writing=True)
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
