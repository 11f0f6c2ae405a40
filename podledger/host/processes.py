"""Processes of this host, identified so that a reused pid is never mistaken for the process that had it before.

A pid alone does not identify a process: the kernel gives it to another one later. A pid together with the time at which
its process started does, as long as the host is not restarted; so the start carries the identifier of the boot.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

MAX_ANCESTORS: Final = 64
"""How many parents of a process are followed."""

_DEAD_STATES: Final = frozenset("ZX")
"""States of a process that has exited: waiting to be reaped, or about to disappear."""


class Process(NamedTuple):
    """A process: its pid, its start as `BOOT:TICKS` (ticks since that boot), and the user it runs as."""

    pid: int
    start: str
    uid: int


class _Stat(NamedTuple):
    parent: int
    state: str
    start: str


def identify(pid: int) -> Process | None:
    """Return the running process with this pid, None if there is none or the kernel hides it."""
    stat = _read_stat(pid)
    if stat is None or stat.state in _DEAD_STATES:
        return None
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
    return Process(pid, stat.start, uid)


def is_running(pid: int, start: str) -> bool:
    """Return whether the process that had this pid and this start still runs."""
    stat = _read_stat(pid)
    return stat is not None and stat.start == start and stat.state not in _DEAD_STATES


def is_descendant(pid: int, of: Process) -> bool:
    """Return whether the process with this pid is `of` or was started below it, as the kernel has it now.

    A process whose parent has exited belongs to the init process or to a subreaper from then on.
    """
    for _ in range(MAX_ANCESTORS):
        stat = _read_stat(pid)
        if stat is None:
            return False
        if pid == of.pid:
            return stat.start == of.start
        if stat.parent <= 1:
            return False
        pid = stat.parent
    return False


def _read_stat(pid: int) -> _Stat | None:
    if pid <= 0:
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command before it may contain blanks and parentheses
    return _Stat(int(fields[1]), fields[0], f"{_boot_id()}:{fields[19]}")


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
