"""The files of a stream in a spool: *segments*, each named after the stream and the number of its first line.

The last segment is open for appending. So the names and the lines state the next number, and no other file has to agree
with them. Only whole lines count: a process that dies while it writes leaves bytes without a newline.

Another user, or a hostile pod, may have put files here. So no link is followed, and every file is checked after it is
open. This module imports only the standard library, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from itertools import islice
from typing import Final, NamedTuple

SEGMENT_BYTES: Final = 1 << 20
"""How long a segment becomes before the next one begins."""

MAX_LINE_BYTES: Final = 16 << 20
"""The longest line that a segment holds."""

MAX_LINES: Final = 50_000
"""The most lines in one segment. A stamped report takes more than 200 bytes, so no sender writes nearly as many."""

MAX_FILES: Final = 1_000
"""The most files of a stream that are looked at."""

UUID7: Final = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_NAME: Final = re.compile(rf"({UUID7})\.([0-9]{{16}})")
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MODE: Final = 0o600


class Position(NamedTuple):
    """The stream of a segment, and the number of its first line."""

    source: str
    first: int

    @property
    def name(self) -> str:
        """The file name of the segment."""
        return f"{self.source}.{self.first:016}"


def positions(folder: int) -> list[Position]:
    """Return the segments in a folder, which is given as a descriptor, in their order."""
    with os.scandir(folder) as entries:
        names = [_NAME.fullmatch(entry.name) for entry in islice(entries, MAX_FILES)]
    return sorted(Position(match[1], int(match[2])) for match in names if match)


def create_segment(folder: int, position: Position) -> int:
    """Create a segment with mode 0600 for the folder's owner, and return its descriptor."""
    file = os.open(position.name, _FLAGS | os.O_CREAT | os.O_EXCL, _MODE, dir_fd=folder)
    if stat.S_IMODE(os.fstat(file).st_mode) != _MODE:
        os.fchmod(file, _MODE)  # the umask may have removed our own right to it
    owner = os.fstat(folder)
    if owner.st_uid != os.geteuid():  # root sweeps the spool of another user, who goes on writing
        os.fchown(file, owner.st_uid, owner.st_gid)
    return file


def open_segment(folder: int, position: Position, uids: frozenset[int]) -> int:
    """Open a segment that belongs to one of the users `uids`; return its descriptor.

    Raises:
        OSError: it cannot be opened, or no sender of these users writes such a file.
    """
    file = os.open(position.name, _FLAGS, dir_fd=folder)
    found = os.fstat(file)
    faults = {
        "not a regular file": not stat.S_ISREG(found.st_mode),
        "a file with several names": found.st_nlink > 1,
        f"a file of user {found.st_uid}": found.st_uid not in uids,
        f"too long with {found.st_size:,} bytes": found.st_size > MAX_LINE_BYTES + SEGMENT_BYTES,
    }
    if fault := next((fault for fault, holds in faults.items() if holds), None):
        os.close(file)
        raise OSError(errno.EPERM, f"it holds {position.name}, which is {fault}; remove that file")
    return file


def trim(file: int, start: int, size: int) -> tuple[int, int]:
    """Cut off the bytes after the last newline; return the new size, and how many lines end after `start`."""
    data = os.pread(file, size - start, start)
    end = start + data.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(file, end)
    return end, data.count(b"\n")


def size_of(folder: int, position: Position) -> int:
    """Return the size of a segment in bytes."""
    return os.stat(position.name, dir_fd=folder, follow_symlinks=False).st_size


def read_lines(file: int, size: int) -> list[bytes]:
    """Return the whole lines in the first `size` bytes of a segment, without blank ones.

    Raises:
        OSError: it holds more lines than a sender writes.
    """
    data = os.pread(file, size, 0)
    if data.count(b"\n") > MAX_LINES:
        raise OSError(errno.EFBIG, f"a file in it holds more than {MAX_LINES:,} lines; remove that file")
    whole = data[: data.rfind(b"\n") + 1]
    return [line + b"\n" for line in whole.split(b"\n")[:-1] if line.strip()]


def is_named(folder: int, position: Position, file: int) -> bool:
    """Return whether the segment's name still stands for the open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.stat(position.name, dir_fd=folder, follow_symlinks=False))
    return False


_held: set[int] = set()


def lock(descriptor: int, *, wait_s: float) -> None:
    """Lock an open file or folder for this process, until `unlock` or its death.

    Raises:
        BlockingIOError: another process has held the lock for all of `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    pause_s = 0.0005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.02)
        else:
            _held.add(descriptor)
            return


def unlock(descriptor: int) -> None:
    """Release a lock, and close its descriptor."""
    _held.discard(descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _after_fork() -> None:
    """Close the locked descriptors in a forked child, which would hold the locks when its parent has died."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)
