"""The lock on serving a ledger, so that two processes never own one by mistake, and the check of its parent's socket.

Any number of processes may append to a ledger. But only one should serve it: a second outbox and a second reconciler
would do everything twice, and half of the reports would arrive at a socket that nobody expects.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from podledger.core.errors import SocketError, StorageError, UsageError
from podledger.core.text import escape
from podledger.host.lock_file import LockFile, LockHeldError, lock_holder


def claim_serving(database: Path, ledger: str, socket: str) -> LockFile:
    """Lock the serving of a ledger for this process, which listens on `socket`.

    Raises:
        SocketError: another process serves it.
        StorageError: the lock file next to the database cannot be created.
    """
    path = _lock_path(database, ledger)
    try:
        return LockFile.acquire(path, os.path.abspath(socket))  # noqa: PTH100 - it may be on no disk
    except LockHeldError as error:
        pid, note = error.holder.pid, escape(error.holder.note, 200)
        reason = f"ledger {escape(ledger)} is already served by process {pid or 'unknown'}"
        hint = "stop that process, or send the reports to its socket"
        raise SocketError(f"{reason}, on {note}" if note else reason, hint=hint) from error
    except OSError as error:
        reason = f"cannot create {path}: {error.strerror or error}"
        raise StorageError(reason, hint="check that you may write in the database's folder") from error


def served_socket(database: Path, ledger: str) -> str | None:
    """Return the socket on which another process serves a ledger now, None if nobody does."""
    holder = lock_holder(_lock_path(database, ledger))
    return holder.note or None if holder else None


def check_parent(ledger: str, parent_socket: str | None, own_socket: str | None) -> None:
    """Check that a ledger does not report to itself.

    Raises:
        UsageError: the socket of its parent is the one that it is served on, by this or another path.
    """
    if parent_socket and own_socket and is_same_socket(parent_socket, own_socket):
        reason = f"ledger {escape(ledger)} cannot report to itself: {escape(own_socket, 200)} is its own socket"
        hint = "set the socket of its parent with `podledger init NAME --parent-socket PATH`"
        raise UsageError(reason, hint=hint)


def is_same_socket(one: str, other: str) -> bool:
    """Return whether two paths name one socket: the same file, or the same place if there is no file yet."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return _place(one) == _place(other)
    except ValueError:  # it holds a null character, and names nothing
        return False


def _place(path: str) -> tuple[object, str]:
    """Return the folder of a path as the file system knows it, if it exists, and the name in it."""
    folder, name = os.path.split(os.path.realpath(path))
    try:
        status = Path(folder).stat()
    except OSError:
        return folder, name
    return (status.st_dev, status.st_ino), name


def _lock_path(database: Path, ledger: str) -> Path:
    """Return the lock file of a ledger. A ledger's name may be longer than the name of a file, so it is digested."""
    place = database.resolve()
    return place.with_name(f"{place.name}-serve-{hashlib.sha256(ledger.encode()).hexdigest()[:16]}")
