"""What the doctor says of a ledger's surroundings: SQLite, the disk, the permissions, the WAL, the settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from podledger.core.text import escape
from podledger.doctor import procfs
from podledger.doctor.finding import Finding, Level

LARGE_WAL_BYTES: Final = 64 << 20
LOW_BYTES: Final = 512 << 20
FULL_BYTES: Final = 32 << 20
FEW_FILES: Final = 1_000


def sqlite_finding(version: tuple[int, int, int]) -> Finding:
    """Whether a release of SQLite can damage a WAL when two connections write or checkpoint at the same instant."""
    name = ".".join(str(part) for part in version)
    mended = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    if mended or version < (3, 7):
        return Finding("sqlite", "ok", f"SQLite {name}")
    detail = f"SQLite {name} has the WAL-reset fault: two processes that write at one instant can damage the file"
    return Finding("sqlite", "warning", detail, "update to 3.51.3, 3.50.7 or 3.44.6; until then one process writes")


def place_findings(path: Path) -> Iterator[Finding]:
    """Where the database lies."""
    point, kind = procfs.file_system(path)
    yield place_finding(point, kind)
    yield room_finding(procfs.room(path.absolute().parent))


def place_finding(point: str, kind: str) -> Finding:
    """Whether a database may lie on a file system of this kind."""
    if kind in procfs.NETWORK:
        detail = f"{point} is a network file system ({kind}), on which locks and the WAL cannot be relied on"
        return Finding("place", "error", detail, "move the database to a local disk")
    return Finding("place", "ok", f"{point} is {kind}")


def room_finding(room: procfs.Room) -> Finding:
    """Whether there is room to write."""
    detail = f"{room.bytes >> 20:,} MiB are left"
    few = room.files is not None and room.files < FEW_FILES
    if few:
        detail += f", and room for {room.files} files"
    if room.bytes < FULL_BYTES:
        return Finding("disk", "error", detail, "make room: without, nothing can be recorded")
    if room.bytes < LOW_BYTES or few:
        return Finding("disk", "warning", detail, "make room before it runs out")
    return Finding("disk", "ok", detail)


def permission_findings(path: Path, sockets: Iterable[Path] = ()) -> Iterator[Finding]:
    """Who else could read or change the files."""
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm")), *sockets]
    objections = [(file, procfs.objection(file)) for file in files]
    for file, objection in objections:
        if objection:
            fix = f"chmod 600 {file}" if "open to" in objection else "put the file itself there, owned by its user"
            yield Finding("permissions", "error", f"{file} {objection}", fix)
    folder = path.absolute().parent
    objection = procfs.folder_objection(folder)
    if objection:
        level: Level = "warning" if "though" in objection else "error"
        yield Finding("permissions", level, f"the folder {folder} {objection}", f"chmod 700 {folder}")
    if not objection and not any(objection for _, objection in objections):
        yield Finding("permissions", "ok", "the files are their owner's alone")


def wal_findings(path: Path) -> Iterator[Finding]:
    """How large the WAL is, and who keeps it from being reused."""
    wal, shm = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    size = wal.stat().st_size if wal.is_file() else 0
    large = size > LARGE_WAL_BYTES
    fix = "end its oldest reader, or restart what writes to it" if large else ""
    yield Finding("wal", "warning" if large else "ok", f"the WAL takes {size / (1 << 20):,.1f} MiB", fix)
    others = ", ".join(f"{pid} ({escape(command, 60)})" for pid, command in procfs.holders(path))
    yield Finding("open by", "ok", f"held open by: {others or 'no other process'}")
    state, readers = procfs.wal_of(shm), procfs.readers(shm)
    if state is None or not readers or readers[0].frame >= state.frames:
        yield Finding("oldest reader", "ok", "nobody keeps the WAL from being checkpointed")
        return
    (pid, command), frame = readers[0]
    detail = f"process {pid} ({escape(command, 60)}) reads a snapshot that ends at frame {frame} of {state.frames}"
    level: Level = "warning" if large else "ok"
    yield Finding("oldest reader", level, f"{detail}: until it ends, no checkpoint can complete", f"end process {pid}")


def settings_findings(settings: dict[str, Any]) -> Iterator[Finding]:
    """Whether a writing connection keeps what it acknowledges, and its triggers hold against INSERT OR REPLACE."""
    journal, synchronous = str(settings["journal_mode"]).lower(), int(settings["synchronous"])
    if journal == "wal" and synchronous >= 2:
        yield Finding("durability", "ok", "WAL, synchronous FULL")
    else:
        detail = f"journal_mode is {journal} and synchronous {synchronous}, below WAL and FULL (2)"
        yield Finding(
            "durability", "error", detail, "nothing should set them; see PRAGMA in the database's environment"
        )
    on = bool(settings["recursive_triggers"])
    detail = f"recursive_triggers is {'on' if on else 'off: INSERT OR REPLACE slips past the delete triggers'}"
    yield Finding("recursive_triggers", "ok" if on else "error", detail, "" if on else "set the pragma")
