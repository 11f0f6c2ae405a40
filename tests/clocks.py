"""A clock for `Ledger.open` that tests set."""

from __future__ import annotations

from dataclasses import dataclass

SECOND_NS = 1_000_000_000
START_S = 1_767_225_600
"""The first second of 2026."""


@dataclass
class Clock:
    """A clock that reads `now_s`, in seconds since 1970, and then advances by `step_s`."""

    now_s: int = START_S
    step_s: int = 1

    def __call__(self) -> int:
        """Return the time in nanoseconds since 1970."""
        read_s = self.now_s
        self.now_s += self.step_s
        return read_s * SECOND_NS
