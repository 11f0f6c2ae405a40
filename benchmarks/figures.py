"""The figures of a run: series of values, ratios between them, and the target of each ratio."""

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
    """The median of a series, and its lowest and highest value."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """Return the spread of `values`."""
        return Spread(median(values), min(values), max(values))


class Ratio(NamedTuple):
    """One series divided by another, repeat by repeat, and its target."""

    row: int
    title: str
    spread: Spread
    at_least: float | None
    at_most: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the median meets the target; None without a target."""
        if self.at_least is not None:
            return self.spread.median >= self.at_least
        return None if self.at_most is None else self.spread.median <= self.at_most


class Figures:
    """The figures of one run, collected as it goes."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.rivals: dict[str, str] = {}
        self.ratios: list[Ratio] = []
        self._values: dict[str, list[float]] = defaultdict(list)
        self._units: dict[str, str] = {}

    def add(self, name: str, value: float, unit: str = "events/s") -> None:
        """Add a value to a series, and print it."""
        self._values[name].append(value)
        self._units[name] = unit
        print(f"  {name:48} {value:14,.4g} {unit}", flush=True)

    def spread(self, name: str) -> Spread | None:
        """Return the spread of a series; None if it was not measured."""
        return Spread.of(self._values[name]) if name in self._values else None

    def compare(
        self,
        row: int,
        title: str,
        name: str,
        reference: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Divide one series by another: value by value if they are equally long, else by the other's median."""
        if name not in self._values or reference not in self._values:
            return
        over, under = self._values[name], self._values[reference]
        if len(over) != len(under):
            under = [median(under)] * len(over)
        spread = Spread.of([a / b for a, b in zip(over, under, strict=True)])
        self.ratios.append(Ratio(row, title, spread, at_least, at_most))

    def fastest(self, names: Sequence[str]) -> str | None:
        """Return the series with the highest median; None if none was measured."""
        known = [name for name in names if name in self._values]
        return max(known, key=lambda name: median(self._values[name]), default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the run as `results.json` stores it."""
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
        """Write the run to a file."""
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n")


def machine() -> dict[str, str | int]:
    """Return the system, cores and versions that the run uses."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
