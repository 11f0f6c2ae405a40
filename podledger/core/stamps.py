"""What a sender knows of itself: its incarnation, and how many events it has sent.

Kept free of everything but the standard library, so that a short-lived sender starts at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import Final

INCARNATION_VARIABLE: Final = "PODLEDGER_INCARNATION"
"""The environment variable in which a parent hands a child the incarnation it spawned."""

MAX_LIVES: Final = 10_000
"""How many pods that it delegated a sender remembers."""


def new_incarnation() -> str:
    """A fresh UUIDv7: its first 60 bits are the clock (RFC 9562, section 6.2, method 3), so a later one is greater."""
    milliseconds, rest_ns = divmod(time.time_ns(), 1_000_000)
    return _uuid((milliseconds & (1 << 48) - 1) << 80 | (rest_ns << 12) // 1_000_000 << 64 | _random(64), version=7)


def _uuid(value: int, version: int) -> str:
    """The text of a UUID with these bits; the module that does this takes longer to load than all of ours."""
    value = value & ~(0xF << 76) & ~(0b11 << 62) | version << 76 | 0b10 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _random(bits: int) -> int:
    return int.from_bytes(os.urandom(bits // 8))


def _now() -> str:
    """The time, as RFC 3339 in UTC, to the microsecond."""
    seconds, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ns // 1000:06}Z"


class Stamper:
    """Stamps the events of one sending process: one source, and a sequence without holes.

    Safe to call from several threads. `source` is this process's incarnation: what its parent handed it in
    `PODLEDGER_INCARNATION`, else a new one.
    """

    def __init__(self, source: str | None = None) -> None:
        self.source = source or _handed_over() or new_incarnation()
        self._sequence = 0
        self._lives: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def incarnation_of(self, pod_name: str) -> str:
        """The incarnation of a pod that this process starts: new at first, the same until its `shut_down` is sent.

        Ask for it before starting the pod, and hand it over in `PODLEDGER_INCARNATION`.
        """
        with self._lock:
            return self._life(pod_name)

    def subject(self, kind: str, pod_name: str) -> str:
        """The incarnation that an event of `kind` about `pod_name` speaks of, when this process sends it."""
        with self._lock:
            if kind == "scope_sub_delegated":
                return self._life(pod_name)
            if kind == "shut_down":
                return self._lives.pop(pod_name, self.source)
            return self._lives.get(pod_name, self.source)

    def stamp(self, subject: str | None) -> dict[str, str | int]:
        """The next stamp, for an event about the incarnation `subject` (None: not known, and left out)."""
        with self._lock:
            self._sequence += 1
            stamp: dict[str, str | int] = {
                "id": _uuid(_random(128), version=4),
                "source": self.source,
                "sequence": self._sequence,
                "time": _now(),
            }
        return stamp if subject is None else stamp | {"subject": subject}

    def _life(self, pod_name: str) -> str:
        life = self._lives.setdefault(pod_name, new_incarnation())
        self._lives.move_to_end(pod_name)
        if len(self._lives) > MAX_LIVES:
            self._lives.popitem(last=False)
        return life


def _handed_over() -> str | None:
    """The incarnation that a parent handed this very process; what a fork left in its environment is its parent's."""
    value = os.environ.get(INCARNATION_VARIABLE)
    return None if value == _left_by_fork.get(os.getpid()) else value


def _forked() -> None:
    value = os.environ.get(INCARNATION_VARIABLE)
    if value is not None:
        _left_by_fork[os.getpid()] = value


_left_by_fork: dict[int, str] = {}
os.register_at_fork(after_in_child=_forked)

_stampers: dict[int, Stamper] = {}
_guard = threading.Lock()


def process_stamper() -> Stamper:
    """The stamper of this process; a forked child gets its own."""
    with _guard:
        stamper = _stampers.get(os.getpid())
        if stamper is None:
            _stampers.clear()
            stamper = _stampers[os.getpid()] = Stamper()
        return stamper
