"""What a ledger's files stand on: the file system, the room left, the permissions, and who holds them open.

All is read from /proc and the files themselves; nothing is locked, and SQLite is not asked.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

NETWORK: Final = frozenset(
    "nfs nfs4 cifs smb3 smbfs 9p afs ceph glusterfs lustre gfs2 ocfs2 orangefs beegfs "
    "fuse.sshfs fuse.glusterfs fuse.s3fs fuse.rclone fuse.ceph ncpfs".split()
)
"""File systems on which locks or syncs cannot be relied on, as /proc/self/mountinfo names them."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_READ_MARK: Final = struct.Struct("=I")
_MARKS: Final = 5


class Room(NamedTuple):
    """What is left of a file system: bytes, and files (None where it does not count them)."""

    bytes: int
    files: int | None


class Process(NamedTuple):
    """A process, by its number and its command."""

    pid: int
    command: str


class Reader(NamedTuple):
    """A process that reads an old snapshot: nothing after the WAL's frame `frame` can be reused while it does."""

    process: Process
    frame: int


class Wal(NamedTuple):
    """The WAL as its shared index tells: the last frame, and how many of them are in the database file already."""

    frames: int
    checkpointed: int


def file_system(path: Path, mounts: str | None = None) -> tuple[str, str]:
    """The mount point and the type of the file system that `path` is on; `mounts` stands for mountinfo's text."""
    text = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    place = str(path.resolve() if mounts is None else path)
    best = ("", "unknown")
    for line in text.splitlines():
        fields, _, kind = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields.split()[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind.split()[0])
    return best


def room(path: Path) -> Room:
    """What is left where `path` is, for us."""
    found = os.statvfs(path)
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def objection(path: Path) -> str:
    """What is wrong with a file's permissions, "" if nothing or if there is none: it should be its owner's alone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return ""
    if stat.S_ISLNK(found.st_mode):
        return "is a symbolic link"
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {found.st_uid}"
    mode = stat.S_IMODE(found.st_mode)
    return f"is open to others (mode {mode:04o})" if mode & 0o077 else ""


def folder_objection(path: Path) -> str:
    """What is wrong with a folder: that others may put files in it, or take ours out."""
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        sticky = ", though only the owner of a file may remove it" if mode & stat.S_ISVTX else ""
        return f"can be written by others (mode {mode:04o}){sticky}"
    return f"belongs to user {found.st_uid}" if found.st_uid not in (os.geteuid(), 0) else ""


def holders(path: Path) -> list[Process]:
    """The other processes that hold the file open, of those that we may look at."""
    wanted = str(path.resolve())
    found = []
    for pid in _other_processes():
        with suppress(OSError):
            if any(_target(link) == wanted for link in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(process(pid))
    return found


def process(pid: int) -> Process:
    """A process by its number."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = ""
    return Process(pid, command)


def wal_of(shm: Path) -> Wal | None:
    """What the WAL's shared index tells; None where there is none."""
    with suppress(OSError, struct.error):
        data = _index_of(shm)
        return Wal(_READ_MARK.unpack_from(data, 16)[0], _READ_MARK.unpack_from(data, 96)[0])
    return None


def readers(shm: Path) -> list[Reader]:
    """Who reads an old snapshot, the oldest first, by the locks on the WAL's shared index."""
    try:
        data, inode = _index_of(shm), shm.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return []
    # SQLite locks byte 120 + 3 + i of the index while a reader uses its i-th mark, which stands at 100 + 4 i.
    found = [
        Reader(process(pid), _READ_MARK.unpack_from(data, 100 + 4 * mark)[0])
        for pid, first, last in _locks_on(inode, locks)
        for mark in range(_MARKS)
        if first <= 123 + mark <= last and pid != os.getpid() and len(data) >= 120
    ]
    return sorted(found, key=lambda reader: reader.frame)


def _index_of(shm: Path) -> bytes:
    """The start of the WAL's shared index; nothing of it where we have it open: to close it would drop our locks."""
    wanted = str(shm.resolve())
    if any(_target(link) == wanted for link in Path("/proc/self/fd").iterdir()):
        return b""
    with shm.open("rb") as stream:
        return stream.read(136)


def _locks_on(inode: int, locks: str) -> Iterator[tuple[int, int, int]]:
    for line in locks.splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[1] == "POSIX" and fields[5].rsplit(":", 1)[-1] == str(inode):
            yield int(fields[4]), int(fields[6]), 1 << 62 if fields[7] == "EOF" else int(fields[7])


def _other_processes() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            yield int(folder.name)


def _target(link: Path) -> str:
    with suppress(OSError):
        return str(link.readlink())
    return ""
