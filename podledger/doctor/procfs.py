"""Facts of the kernel about a ledger's files: the file system, free space, permissions, and who has them open.

Everything comes from /proc and from the files themselves. Nothing is locked, and SQLite is not used.
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
"""File systems on which locks or syncs are not reliable, as /proc/self/mountinfo names them."""

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class FreeSpace(NamedTuple):
    """The free space of a file system: bytes, and files (None if it does not count them)."""

    bytes: int
    files: int | None


class PermissionFault(NamedTuple):
    """A fault in the permissions of a file or folder. A minor one does not let others read or change our files."""

    path: Path
    detail: str
    fix: str
    is_minor: bool = False


class Process(NamedTuple):
    """A process, by its number and its command."""

    pid: int
    command: str


class Reader(NamedTuple):
    """A process that reads an old snapshot, and so keeps the WAL after its frame `frame` from being reused."""

    process: Process
    frame: int


def file_system(path: Path, mounts: str | None = None) -> tuple[str, str]:
    """Return the mount point and the type of the file system of `path`; `mounts` replaces mountinfo's text."""
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


def free_space(path: Path) -> FreeSpace:
    """Return the free space for an ordinary user on the file system of `path`."""
    status = os.statvfs(path)
    return FreeSpace(status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None)


def file_fault(path: Path) -> PermissionFault | None:
    """Return the fault that lets others read or change a file; None if there is none, or no file."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        return PermissionFault(path, "is a symbolic link", "replace it with the file itself")
    if status.st_uid not in (os.geteuid(), 0):
        return PermissionFault(path, f"belongs to user {status.st_uid}", f"chown {os.geteuid()} {path}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return PermissionFault(path, f"is open to others (mode {mode:04o})", f"chmod 600 {path}")
    return None


def folder_fault(path: Path) -> PermissionFault | None:
    """Return the fault that lets others add files to a folder, or remove ours; None if there is none."""
    folder = path.absolute()
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        detail = f"is a folder that others can write to (mode {mode:04o})"
        if mode & stat.S_ISVTX:
            detail += ", though only the owner of a file can remove it"
        return PermissionFault(folder, detail, f"chmod 700 {folder}", is_minor=bool(mode & stat.S_ISVTX))
    if status.st_uid not in (os.geteuid(), 0):
        return PermissionFault(folder, f"is a folder of user {status.st_uid}", f"chown {os.geteuid()} {folder}")
    return None


def processes_with(path: Path) -> list[Process]:
    """Return the other processes that have a file open, as far as this user may look at them."""
    target = str(path.resolve())
    found = []
    for pid in _other_processes():
        with suppress(OSError):
            if any(_target(link) == target for link in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(process(pid))
    return found


def process(pid: int) -> Process:
    """Return a process by its number."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = ""
    return Process(pid, command)


# SQLite's shared index of a WAL: bytes 16 to 19 hold the number of its frames; the five read marks begin at byte 100.
# A reader holds a lock on byte 123 + i while it uses mark i.
_NUMBER: Final = struct.Struct("=I")
_FRAMES_AT, _MARKS_AT, _LOCKS_AT, _MARKS, _INDEX_BYTES = 16, 100, 123, 5, 120


def last_wal_frame(shm: Path) -> int | None:
    """Return the number of the WAL's last frame, by its shared index; None if there is none."""
    with suppress(OSError, struct.error):
        number: int = _NUMBER.unpack_from(_index(shm), _FRAMES_AT)[0]
        return number
    return None


def readers(shm: Path) -> list[Reader]:
    """Return the processes that read an old snapshot, the oldest first, by the locks on the WAL's shared index."""
    try:
        index, inode = _index(shm), shm.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return []
    found = [
        Reader(process(pid), _NUMBER.unpack_from(index, _MARKS_AT + 4 * mark)[0])
        for pid, first, last in _locks_on(inode, locks)
        for mark in range(_MARKS)
        if first <= _LOCKS_AT + mark <= last and pid != os.getpid() and len(index) >= _INDEX_BYTES
    ]
    return sorted(found, key=lambda reader: reader.frame)


def _index(shm: Path) -> bytes:
    """Return the start of the WAL's shared index, or nothing if we have it open: to close it would drop our locks."""
    target = str(shm.resolve())
    if any(_target(link) == target for link in Path("/proc/self/fd").iterdir()):
        return b""
    with shm.open("rb") as stream:
        return stream.read(_INDEX_BYTES)


def _locks_on(inode: int, locks: str) -> Iterator[tuple[int, int, int]]:
    """Yield the process, first and last byte of each POSIX lock on a file."""
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
