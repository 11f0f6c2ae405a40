"""Checks of a ledger's host: the SQLite release, the file system, permissions, the WAL and its settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from podledger.core.text import escape
from podledger.doctor import procfs
from podledger.doctor.finding import Finding, Level

LARGE_WAL_WARNING_BYTES: Final = 64 << 20
"""Four times the size at which the writer empties the WAL: something keeps it from doing so."""

LOW_BYTES: Final = 512 << 20
FULL_BYTES: Final = 32 << 20
FEW_FILES: Final = 1_000


def sqlite_finding(version: tuple[int, int, int]) -> Finding:
    """Return whether two connections can damage the WAL in this release by writing or checkpointing at one instant."""
    name = ".".join(str(part) for part in version)
    is_fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if is_fixed or version < (3, 7):
        return Finding("sqlite", "ok", f"SQLite {name}")
    detail = f"SQLite {name} has the WAL-reset fault: two processes that write at one instant can damage the file"
    fix = "update SQLite to 3.51.3, 3.50.7 or 3.44.6; until then let only one process write"
    return Finding("sqlite", "warning", detail, fix)


def place_findings(path: Path) -> Iterator[Finding]:
    """Yield the findings about the file system of the database."""
    yield place_finding(*procfs.file_system(path))
    yield space_finding(procfs.free_space(path.absolute().parent))


def place_finding(mount_point: str, kind: str) -> Finding:
    """Return whether a database may be on a file system of this kind."""
    if kind in procfs.NETWORK:
        detail = f"{mount_point} is a network file system ({kind}), on which locks and the WAL are not reliable"
        return Finding("place", "error", detail, "move the database to a local disk")
    return Finding("place", "ok", f"{mount_point} is {kind}")


def space_finding(space: procfs.FreeSpace) -> Finding:
    """Return whether there is enough free space to write."""
    detail = f"{space.bytes >> 20:,} MiB are free"
    has_few_files = space.files is not None and space.files < FEW_FILES
    if has_few_files:
        detail += f", and room for {space.files} files"
    if space.bytes < FULL_BYTES:
        return Finding("disk", "error", detail, "free some space: on a full disk nothing can be recorded")
    if space.bytes < LOW_BYTES or has_few_files:
        return Finding("disk", "warning", detail, "free some space before the disk is full")
    return Finding("disk", "ok", detail)


def permission_findings(path: Path, sockets: Iterable[Path] = ()) -> Iterator[Finding]:
    """Yield the permissions that let other users read or change the database's files and the sockets."""
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm")), *sockets]
    faults = [*filter(None, map(procfs.file_fault, files)), *filter(None, [procfs.folder_fault(path.parent)])]
    for fault in faults:
        level: Level = "warning" if fault.is_minor else "error"
        yield Finding("permissions", level, f"{fault.path} {fault.detail}", fault.fix)
    if not faults:
        yield Finding("permissions", "ok", "only their owner can read or change the files")


def wal_findings(path: Path) -> Iterator[Finding]:
    """Yield the size of the WAL, who has the database open, and who keeps the WAL from being reused."""
    wal, shm = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    size = wal.stat().st_size if wal.is_file() else 0
    level: Level = "warning" if size > LARGE_WAL_WARNING_BYTES else "ok"
    fix = "end its oldest reader, or restart the process that writes to it" if level == "warning" else ""
    yield Finding("wal", level, f"the WAL takes {size / (1 << 20):,.1f} MiB", fix)
    others = ", ".join(f"{pid} ({escape(command, 60)})" for pid, command in procfs.processes_with(path))
    yield Finding("open by", "ok", f"other processes that have it open: {others or 'none'}")
    last_frame, readers = procfs.last_wal_frame(shm), procfs.readers(shm)
    if last_frame is None or not readers or readers[0].frame >= last_frame:
        yield Finding("oldest reader", "ok", "nobody keeps the WAL from being checkpointed")
        return
    (pid, command), frame = readers[0]
    detail = f"process {pid} ({escape(command, 60)}) reads a snapshot that ends at frame {frame} of {last_frame}"
    fix = f"end process {pid}" if level == "warning" else ""
    yield Finding("oldest reader", level, f"{detail}; no checkpoint can complete before it ends", fix)


def settings_findings(settings: dict[str, Any]) -> Iterator[Finding]:
    """Yield whether a writing connection is durable, and whether its triggers apply to INSERT OR REPLACE."""
    journal, synchronous = str(settings["journal_mode"]).lower(), int(settings["synchronous"])
    if journal == "wal" and synchronous >= 2:
        yield Finding("durability", "ok", "WAL, synchronous FULL")
    else:
        detail = f"journal_mode is {journal} and synchronous is {synchronous}, below WAL and FULL (2)"
        yield Finding("durability", "error", detail, "use a SQLite library that lets podledger set these pragmas")
    if settings["recursive_triggers"]:
        yield Finding("recursive_triggers", "ok", "recursive_triggers is on")
    else:
        detail = "recursive_triggers is off: INSERT OR REPLACE bypasses the delete triggers"
        fix = "use a SQLite library that lets podledger set this pragma"
        yield Finding("recursive_triggers", "error", detail, fix)
