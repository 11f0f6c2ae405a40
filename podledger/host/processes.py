"""Processes of this host, identified so that a reused pid is never mistaken for the process that had it before.

A pid alone does not identify a process: the kernel gives it to another one later, and it means another process in
another pid namespace, such as that of a container. So each process is identified by its pid and its *start*,
`BOOT:NAMESPACE:TICKS`: the identifier of the host's boot, the pid namespace, and the ticks from that boot to its start.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

MAX_ANCESTORS: Final = 64
"""How many parents of a process are followed."""

MAX_PARENTS: Final = 1_000
PARENT_KEPT_S: Final = 1.0
"""How many ancestries of parents are remembered, and for how long: too short for a pid to be used again."""

Liveness = Literal["running", "gone", "unknown"]
"""Whether a process runs. It is unknown if the kernel hides it, or if it is of another pid namespace."""

_DEAD_STATES: Final = frozenset("ZX")
"""States of a process that has exited: waiting to be reaped, or about to disappear."""


class Ancestry(NamedTuple):
    """A process and those above it, its own pid and start first.

    It is not complete if one of them was gone, or the kernel hid it.
    """

    processes: tuple[tuple[int, str], ...]
    is_complete: bool


class _Stat(NamedTuple):
    parent: int
    has_exited: bool
    start: str


class _Place(NamedTuple):
    boot: str
    namespace: str


def start_of(pid: int) -> str | None:
    """Return the start of the process with this pid, None if there is none or the kernel hides it.

    A process that has exited keeps its start until its parent reaps it.
    """
    stat = _read_stat(pid)
    return stat and stat.start


def liveness(pid: int, start: str) -> Liveness:
    """Return whether the process that had this pid and this start still runs."""
    boot, _, rest = start.partition(":")
    namespace = rest.partition(":")[0]
    here = _place(os.getpid())
    if here is None or not namespace:
        return "unknown"
    if boot != here.boot:  # the host has started again since
        return "gone"
    if namespace != here.namespace:
        return "unknown"
    stat = _read_stat(pid)
    if stat is not None:
        return "running" if stat.start == start and not stat.has_exited else "gone"
    return "unknown" if _exists(pid) else "gone"


def ancestry(pid: int) -> Ancestry:
    """Return the process with this pid and those above it, as the kernel has them now.

    A process whose parent has exited belongs to the init process or to a subreaper from then on.
    """
    found: list[tuple[int, str]] = []
    while len(found) < MAX_ANCESTORS:  # nobody needs more, and a longer line is treated as if it ended here
        stat = _read_stat(pid)
        if stat is None:
            return Ancestry(tuple(found), is_complete=False)
        found.append((pid, stat.start))
        pid = stat.parent
        if pid == 0:
            break
    return Ancestry(tuple(found), is_complete=True)


class AncestryReader:
    """Reads ancestries, and remembers those of parents for a second: many short-lived senders have the same one."""

    def __init__(self) -> None:
        self._parents: dict[int, tuple[float, Ancestry]] = {}

    def read(self, pid: int | None) -> Ancestry:
        """Return the ancestry of the process with this pid; nothing is known of None."""
        stat = None if pid is None else _read_stat(pid)
        if pid is None or stat is None:
            return Ancestry((), is_complete=False)
        above = self._of_parent(stat.parent) if stat.parent else Ancestry((), is_complete=True)
        return Ancestry(((pid, stat.start), *above.processes), above.is_complete)

    def _of_parent(self, pid: int) -> Ancestry:
        now = time.monotonic()
        until, known = self._parents.get(pid, (now, None))
        if known is None or until <= now:
            if len(self._parents) >= MAX_PARENTS:
                self._parents.clear()
            known = ancestry(pid)
            self._parents[pid] = (now + PARENT_KEPT_S, known)
        return known


def user_of(pid: int) -> int | None:
    """Return the user that a process runs as, None if there is no such process or the kernel hides it."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
        return int(status.partition(b"\nUid:")[2].split(maxsplit=2)[1])  # the second number is the effective user
    except (OSError, IndexError):
        return None


def _read_stat(pid: int) -> _Stat | None:
    here = _place(os.getpid())
    if pid <= 0 or here is None:
        return None
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()  # the command before it may contain blanks and parentheses
    # If only the first thread of a process has ended, its state is that of a process that has exited.
    has_exited = fields[0].decode() in _DEAD_STATES and int(fields[17]) < 2
    return _Stat(int(fields[1]), has_exited, f"{here.boot}:{here.namespace}:{fields[19].decode()}")


def _exists(pid: int) -> bool:
    """Return whether the kernel knows the pid, even if /proc does not show it to us."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@lru_cache(maxsize=1)
def _place(own_pid: int) -> _Place | None:
    """Return the boot and our pid namespace, None if /proc is not readable or shows the pids of another namespace."""
    try:
        if os.readlink("/proc/self") != str(own_pid):  # noqa: PTH115 - not a path, and it starts every look-up
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return _Place(boot, str(Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:
        return None
