"""The schema of the database at a path: identified, created, upgraded or refused."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, column, select, table

from podledger.core.errors import DAMAGED_HINT, DamagedError, LedgerNotFoundError, SchemaError, StorageError
from podledger.store.connections import BUSY_TIMEOUT_S, alone, read_only, writer_settings
from podledger.store.driver import HotStatement
from podledger.store.own_tables import check_tables, revisions
from podledger.store.sqlite.files import (
    APPLICATION_ID,
    application_id_of,
    set_application_id,
    table_names,
)

SCHEMA_HEAD: Final = "0002"
"""The newest migration. A database at this revision opens without Alembic."""

_LEAST_BYTES: Final = 512
"""The smallest file that can be a SQLite database: one page."""

_REVISIONS: Final = HotStatement(select(column("version_num")).select_from(table("alembic_version")).limit(2))
_MIGRATING: Final = threading.Lock()
"""Alembic does not work on several threads at once."""


class Identity(NamedTuple):
    """The identity that a database file states; `revision` is its migration, None for a database without tables."""

    application_id: int
    revision: str | None


def prepare(path: Path, *, create: bool, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Identity:
    """Check that a database of the current schema is at `path`; `create` makes or upgrades it. Return its identity.

    Raises:
        LedgerNotFoundError: there is no database, and `create` is false.
        SchemaError: it is of another version.
        StorageError: it cannot be opened.
    """
    _check_place(path)
    found = _identify_if_there(path)
    if create:
        _create_file(path)
        found = found or identify(path)
    if found is None:
        raise LedgerNotFoundError(f"there is no database at {path}", hint="make one with `podledger init NAME`")
    if found.revision == SCHEMA_HEAD:
        return found
    _check_upgradable(path, found, create=create)
    _upgrade(path, busy_timeout_s)
    return Identity(APPLICATION_ID, SCHEMA_HEAD)


def _check_place(path: Path) -> None:
    try:
        is_folder = path.is_dir()
    except OSError as error:
        hint = "check the permissions of the folders above it"
        raise StorageError(f"{path} cannot be reached: {error.strerror}", hint=hint) from error
    if is_folder:
        raise StorageError(f"{path} is a folder, and no database", hint="give the path of the file itself")


def _identify_if_there(path: Path) -> Identity | None:
    if not path.is_file():
        return None
    _check_header(path)
    _roll_back(path)
    return identify(path)


def _check_header(path: Path) -> None:
    """Refuse a file of a few bytes, which SQLite would take for an empty one. It checks the header of a larger one.

    Only SQLite opens a database, here and elsewhere: to close the file drops every lock that this process has on it,
    and another process may then remove the WAL of an open ledger.
    """
    if 0 < path.stat().st_size < _LEAST_BYTES:
        raise DamagedError(
            f"{path} is no podledger database, or was cut off", hint="give another --db, or restore a backup"
        )


def _roll_back(path: Path) -> None:
    """Roll back the transaction of a process that died before the database had a WAL: a reader may not do this."""
    if path.with_name(f"{path.name}-journal").exists():
        writer_settings(path)


def identify(path: Path) -> Identity:
    """Return the identity that the database at `path` states.

    Raises:
        DamagedError: it holds tables, and not one schema revision, or one of the tables is not podledger's.
        StorageError: it cannot be read.
    """
    with read_only(path, tables=revisions) as connection:
        number, tables = application_id_of(connection), table_names(connection)
        if not tables:
            return Identity(number, None)
        if "alembic_version" not in tables:
            raise DamagedError(f"{path} is no podledger database", hint="give another --db")
        found = [str(revision) for (revision,) in _REVISIONS.fetch(connection, {})]
        if len(found) != 1:
            what = "several schema revisions" if found else "no schema revision"
            raise DamagedError(f"{path} names {what}, and not one", hint=DAMAGED_HINT)
        if found[0] <= SCHEMA_HEAD:  # a newer one is not read
            check_tables(connection, str(path))
    return Identity(number, found[0])


def _check_upgradable(path: Path, found: Identity, *, create: bool) -> None:
    revision = found.revision
    if revision is not None and revision > SCHEMA_HEAD:
        reason = f"{path} has schema {revision}, newer than this podledger's {SCHEMA_HEAD}"
        raise SchemaError(reason, hint="update podledger")
    if found.application_id not in (0, APPLICATION_ID):
        reason = f"{path} has schema {revision}, older than this podledger's {SCHEMA_HEAD}, and cannot be upgraded"
        raise SchemaError(reason, hint="read it with the podledger that made it, or with sqlite3")
    if revision is None and not create:
        raise SchemaError(f"{path} is empty: it holds no ledger", hint="create one with `podledger init NAME`")
    if not create:
        reason = f"{path} has schema {revision}, older than this podledger's {SCHEMA_HEAD}"
        raise SchemaError(reason, hint="upgrade it with `podledger init NAME`")
    if revision is not None and not any((migrations_folder() / "versions").glob(f"{revision or '-'}_*.py")):
        raise DamagedError(f"{path} names an unknown schema revision: {revision!r}", hint=DAMAGED_HINT)


def _create_file(path: Path) -> None:
    """Create an empty file that only its owner may read and write, if there is none; SQLite gives its WAL that mode."""
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    hint = "check that its folder exists and can be written, and that it is no symbolic link"
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path} is no regular file", hint=hint) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be created: {error.strerror}", hint=hint) from error
    else:
        os.fchmod(descriptor, 0o600)  # the umask may have taken the owner's own permissions away
        os.close(descriptor)


def _upgrade(path: Path, busy_timeout_s: float) -> None:
    with _MIGRATING, alone(path, busy_timeout_s) as connection:
        set_application_id(connection, APPLICATION_ID)
        upgrade_to(connection)


def migrations_folder() -> Path:
    """Return where the migrations are: in the installed package, or next to it in a checkout."""
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


def _alembic_config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
