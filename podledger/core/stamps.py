"""Stamps as a sender makes them: a stream of numbered events, and the incarnations that the sender knows.

This module imports only the standard library, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import OrderedDict
from typing import Final

INCARNATION_VARIABLE: Final = "PODLEDGER_INCARNATION"
"""The environment variable in which a parent passes a child its incarnation."""

POD_VARIABLE: Final = "PODLEDGER_POD"
"""The environment variable in which a parent passes a child its pod name."""

SOCKET_VARIABLE: Final = "PODLEDGER_SOCKET"
"""The environment variable in which a parent passes a child the socket to report to."""

SPOOL_VARIABLE: Final = "PODLEDGER_SPOOL"
"""The environment variable in which a parent passes a child the folder that keeps its reports until it takes them."""

MAX_INCARNATIONS: Final = 10_000
"""How many of the pods that it delegated a stamper remembers."""


def new_incarnation(after: str | None = None) -> str:
    """Return a new UUIDv7, greater than each one that this process made before, and than `after`.

    Sixty bits of clock come first (RFC 9562, section 6.2, method 3). If the clock was set back, or `after` is from a
    clock that is ahead, they count on from there.
    """
    global _last_tick  # noqa: PLW0603 - one count for each process
    milliseconds, rest_ns = divmod(time.time_ns(), 1_000_000)
    tick = (milliseconds & (1 << 48) - 1) << 12 | (rest_ns << 12) // 1_000_000
    with _counting:
        _last_tick = tick = max(tick, _last_tick + 1)
    if after is not None:
        tick = min(max(tick, _tick_of(after) + 1), (1 << 60) - 1)
    return _uuid(tick >> 12 << 80 | (tick & 0xFFF) << 64 | _random(64), version=7)


def _tick_of(incarnation: str) -> int:
    """Return the sixty bits of clock of a UUIDv7."""
    digits = incarnation.replace("-", "")
    return int(digits[:12] + digits[13:16], 16)


_last_tick = 0
_counting = threading.Lock()


def _uuid(value: int, version: int) -> str:
    """Return the text of a UUID; the module `uuid` would take longer to import than this whole package."""
    value = value & ~(0xF << 76) & ~(0b11 << 62) | version << 76 | 0b10 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _random(bits: int) -> int:
    return int.from_bytes(os.urandom(bits // 8))


def _now() -> str:
    """Return the current time as RFC 3339 in UTC with microseconds."""
    seconds, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ns // 1000:06}Z"


class Stamper:
    """Stamps the events of one sending process: one stream, numbered without gaps.

    You may call it from several threads. A stamp states only facts that the process knows. `source` names the stream,
    and is never an incarnation: several processes may report for one pod. `speaker` is the incarnation of this
    process's pod: by default the one that its parent passed in `PODLEDGER_INCARNATION`, None if it passed none.
    """

    def __init__(self, source: str | None = None, *, speaker: str | None = None) -> None:
        self.source = source or new_incarnation()
        self.speaker = speaker or _inherited()
        self._pod_name = os.environ.get(POD_VARIABLE) or None
        self._sequence = 0
        self._incarnations: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def spawn(self, pod_name: str, *, after: str | None = None) -> str:
        """Return the incarnation of a pod that this process is about to spawn: a new one each time.

        It is greater than each one that this process made, and than `after`, the newest that is known of this name.
        Pass it to the pod in `PODLEDGER_INCARNATION`. It is the subject of this process's reports about the pod until
        the pod's `shut_down` is sent, or until the next spawn under the same name.
        """
        with self._lock:
            incarnation = self._incarnations[pod_name] = new_incarnation(after)
            self._incarnations.move_to_end(pod_name)
            if len(self._incarnations) > MAX_INCARNATIONS:
                self._incarnations.popitem(last=False)
            return incarnation

    def subject(self, kind: str, pod_name: str) -> str | None:
        """Return the incarnation that an event is about, or None if this process does not know it.

        It knows those of the pods that it spawned (`spawn`), and its own.
        """
        with self._lock:
            spawned = self._incarnations.pop if kind == "shut_down" else self._incarnations.get
            found = spawned(pod_name, None)
        if found is not None or kind == "scope_sub_delegated":
            return found
        return self.speaker if self._pod_name in (None, pod_name) else None

    def stamp(self, subject: str | None) -> dict[str, str | int]:
        """Return the next stamp for an event about the incarnation `subject`, which is left out if it is None."""
        with self._lock:
            self._sequence += 1
            return self.stamp_at(self.source, self._sequence, subject)

    def stamp_at(self, source: str, sequence: int, subject: str | None) -> dict[str, str | int]:
        """Return the stamp of the event with a number in a stream that several processes share, as in a spool."""
        stamp: dict[str, str | int] = {
            "id": _uuid(_random(128), version=4),
            "source": source,
            "sequence": sequence,
            "time": _now(),
        }
        known = {"subject": subject, "speaker": self.speaker}
        return stamp | {name: incarnation for name, incarnation in known.items() if incarnation is not None}


def _inherited() -> str | None:
    """Return the incarnation that the parent passed to this process, and not one that a fork inherited.

    A receiver drops a stamp that names something else than a UUIDv7, and with it the protection against repetition.
    """
    value = os.environ.get(INCARNATION_VARIABLE)
    if not value or value == _before_fork.get(os.getpid()):
        return None
    if not re.fullmatch(_UUID7, value):
        import logging

        text = "%s is not a UUIDv7, so this process reports without an incarnation"
        logging.getLogger("podledger.sender").warning(text, INCARNATION_VARIABLE)
        return None
    return value.lower()


_UUID7: Final = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"


def _forked() -> None:
    value = os.environ.get(INCARNATION_VARIABLE)
    if value is not None:
        _before_fork[os.getpid()] = value


_before_fork: dict[int, str] = {}
os.register_at_fork(after_in_child=_forked)

_stampers: dict[int, Stamper] = {}
_guard = threading.Lock()


def process_stamper() -> Stamper:
    """Return the stamper of this process; a forked child gets its own."""
    with _guard:
        stamper = _stampers.get(os.getpid())
        if stamper is None:
            _stampers.clear()
            stamper = _stampers[os.getpid()] = Stamper()
        return stamper
