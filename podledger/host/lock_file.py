"""Lock files: each is locked as long as the process that holds it lives, and states that process and a note.

The lock is the kernel's, so it ends with the process, however that ends. The file that a killed process leaves says
nothing, because nobody has locked it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from podledger.host.processes import liveness, start_of

MODE: Final = 0o600
MAX_BYTES: Final = 8192
"""How much of a lock file is read."""


class LockHolder(NamedTuple):
    """The process that holds a lock file, and the note that it left there; the pid is 0 if the file does not say it."""

    pid: int
    start: str
    note: str


class LockHeldError(Exception):
    """Raised if another process, or another part of this one, holds the lock."""

    def __init__(self, holder: LockHolder) -> None:
        super().__init__(f"held by process {holder.pid}")
        self.holder = holder


class LockFile:
    """A lock file that this process holds until `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, path: Path, note: str = "") -> LockFile:
        """Create and lock the file, and write our process and a note into it.

        Raises:
            LockHeldError: it is locked already.
            OSError: it cannot be created, or something else is in its place.
        """
        while True:
            descriptor = _locked(path)
            try:
                if _is_in_place(descriptor, path):
                    text = f"{os.getpid()}\n{start_of(os.getpid()) or ''}\n{note}"
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, os.fsencode(text), 0)
                    return cls(path, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the previous holder has removed the file since

    def release(self) -> None:
        """Remove the file and end the lock."""
        with suppress(OSError):
            self.path.unlink()  # before the lock ends, so that no process locks a file that is being removed
        os.close(self._descriptor)


def lock_holder(path: Path) -> LockHolder | None:
    """Return the process that holds a lock file, None if nobody does or the file cannot be read.

    To try the lock would refuse it to a process that wants it at that moment, so this asks for the process.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        holder = _holder(descriptor)
    finally:
        os.close(descriptor)
    return holder if holder.pid and liveness(holder.pid, holder.start) != "gone" else None


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
    try:
        _make_private(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise LockHeldError(holder) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _make_private(descriptor: int) -> None:
    """Give the file our mode. It will be emptied, so it must be a file of its own.

    Raises:
        OSError: it is not.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise OSError(errno.EEXIST, "another file is in its place")
    if stat.S_IMODE(status.st_mode) != MODE:
        os.fchmod(descriptor, MODE)  # the umask may have removed our own right to it


def _is_in_place(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def _holder(descriptor: int) -> LockHolder:
    pid, _, rest = os.fsdecode(os.pread(descriptor, MAX_BYTES, 0)).partition("\n")
    start, _, note = rest.partition("\n")
    return LockHolder(int(pid) if pid.isascii() and pid.isdigit() and len(pid) < 10 else 0, start, note)
