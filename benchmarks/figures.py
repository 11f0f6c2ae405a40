"""What was measured: series of values, ratios of them within the run, and what is asked of each ratio."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """A series in short: its middle, and its ends."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of some values."""
        return Spread(median(values), min(values), max(values))


class Ratio(NamedTuple):
    """One series over another, repeat by repeat, and where it must arrive."""

    row: int
    title: str
    spread: Spread
    at_least: float | None
    at_most: float | None

    @property
    def holds(self) -> bool | None:
        """Whether its median is where it must be; None where nothing is asked of it."""
        if self.at_least is not None:
            return self.spread.median >= self.at_least
        return None if self.at_most is None else self.spread.median <= self.at_most


class Figures:
    """The figures of one run, gathered as it goes."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.rivals: dict[str, str] = {}
        self.ratios: list[Ratio] = []
        self._values: dict[str, list[float]] = defaultdict(list)
        self._units: dict[str, str] = {}

    def add(self, name: str, value: float, unit: str = "events/s") -> None:
        """One more value of a series; tell it too."""
        self._values[name].append(value)
        self._units[name] = unit
        print(f"  {name:48} {value:14,.4g} {unit}", flush=True)

    def spread(self, name: str) -> Spread | None:
        """The spread of a series; None if it was not measured."""
        return Spread.of(self._values[name]) if name in self._values else None

    def compare(
        self,
        row: int,
        title: str,
        what: str,
        beside: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """One series over another: value by value where both have as many, else over the other's median."""
        if what not in self._values or beside not in self._values:
            return
        over, under = self._values[what], self._values[beside]
        if len(over) != len(under):
            under = [median(under)] * len(over)
        spread = Spread.of([a / b for a, b in zip(over, under, strict=True)])
        self.ratios.append(Ratio(row, title, spread, at_least, at_most))

    def fastest(self, names: Sequence[str]) -> str | None:
        """The series with the greatest median."""
        known = [name for name in names if name in self._values]
        return max(known, key=lambda name: median(self._values[name]), default=None)

    def as_json(self) -> dict[str, Any]:
        """The run as `results.json` holds it."""
        return {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "machine": machine(),
            "rivals": self.rivals,
            "ratios": [
                ratio._asdict() | {"spread": ratio.spread._asdict(), "holds": ratio.holds}
                for ratio in sorted(self.ratios, key=lambda ratio: ratio.row)
            ],
            "figures": {
                name: {"unit": self._units[name], **Spread.of(values)._asdict(), "values": values}
                for name, values in self._values.items()
            },
        }

    def write(self, path: Path) -> None:
        """Put the run into a file."""
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")


def machine() -> dict[str, str | int]:
    """What the run was on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
