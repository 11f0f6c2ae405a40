"""SQLite's errors as podledger's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound

from podledger.core.errors import DAMAGED_HINT, DamagedError, StorageError

DRIVER_ERRORS: Final = (DBAPIError, sqlite3.Error, UnicodeDecodeError, MemoryError)
"""The driver's exceptions, raw or wrapped by SQLAlchemy: `UnicodeDecodeError` is for a message that quotes a damaged
schema, and `MemoryError` for SQLite's own limit."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise the driver's errors as podledger's, with the driver's error as their cause."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise storage_error(path, error) from error
    except (NoResultFound, MultipleResultsFound) as error:
        raise DamagedError(f"{path} is damaged: its tables contradict each other", hint=DAMAGED_HINT) from error


_MEANINGS: Final = {
    "SQLITE_BUSY": ("another process holds the lock", "try again, or find the process that holds it"),
    "SQLITE_LOCKED": ("another process holds the lock", "try again, or find the process that holds it"),
    "SQLITE_FULL": ("the disk is full", "free some space; nothing that was acknowledged is lost"),
    "SQLITE_READONLY": ("it is read-only", "check the permissions of the file and its folder"),
    "SQLITE_CANTOPEN": ("it cannot be opened", "check that the file and its folder exist and can be read and written"),
    "SQLITE_PERM": ("permission denied", "check the permissions of the file and its folder"),
    "SQLITE_TOOBIG": ("a value or an answer is larger than podledger reads", "ask for less, or see docs/security.md"),
    "SQLITE_IOERR": ("the disk failed to read or write", "check the disk, then run `podledger verify`"),
}

_DAMAGED: Final = {"SQLITE_CORRUPT", "SQLITE_FORMAT", "SQLITE_SCHEMA", "SQLITE_MISMATCH"}


def storage_error(path: Path, error: BaseException) -> StorageError:
    """Return one of `DRIVER_ERRORS` as podledger's error about the database at `path`."""
    if isinstance(error, UnicodeDecodeError):
        return DamagedError(f"{path} is damaged: its text is not UTF-8", hint=DAMAGED_HINT)
    if isinstance(error, MemoryError):
        return StorageError(f"{path}: SQLite takes more memory than podledger lets it", hint=DAMAGED_HINT)
    cause = error.orig if isinstance(error, DBAPIError) else error
    name = str(getattr(cause, "sqlite_errorname", ""))
    family = "_".join(name.split("_")[:2])
    if family == "SQLITE_NOTADB":
        hint = "give another --db; if it was a ledger, restore a backup, or try `podledger recover`"
        return DamagedError(f"{path} is no SQLite database, or its first page is damaged", hint=hint)
    if family in _DAMAGED:
        return DamagedError(f"{path} is damaged, or is no podledger database: {cause}", hint=DAMAGED_HINT)
    reason, hint = _MEANINGS.get(family, (str(cause), "run `podledger verify`"))
    return StorageError(f"{path}: {reason} ({name or type(cause).__name__})", hint=hint)
