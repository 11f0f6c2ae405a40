"""`python -m benchmarks [--quick] [--only SECTION …]`: measure, print, and write `results.json` and `chart.svg`."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import appending, chart, history, memory, receiving, report, rivals, starting
from benchmarks.figures import Figures
from benchmarks.places import Places

HERE: Final = Path(__file__).parent
SECTIONS: Final = ("appending", "receiving", "history", "memory", "starting")


class Size(NamedTuple):
    """The size of a run: repeats, and events or starts per measurement."""

    repeats: int
    appended: int
    received: int
    short_log: int
    long_log: int
    replayed: int
    starts: int


FULL: Final = Size(5, 40_000, 20_000, 100_000, 1_000_000, 100_000, 15)
QUICK: Final = Size(2, 8_000, 4_000, 10_000, 50_000, 10_000, 3)


def run(size: Size, sections: list[str], *, quick: bool) -> Figures:
    """Measure the given sections."""
    figures = Figures(quick=quick)
    found = rivals.find()
    figures.rivals = found.known
    with Places() as places:
        if "appending" in sections:
            print("appending")
            appending.measure(figures, places, found.rivals, repeats=size.repeats, count=size.appended)
        if "receiving" in sections:
            print("receiving")
            receiving.measure(figures, places, repeats=size.repeats, count=size.received)
            receiving.measure_answers(figures, places, repeats=size.repeats, count=size.received)
        if "history" in sections or "memory" in sections:
            print("history")
            _measure_history(figures, places, found.rivals, size, sections)
        if "starting" in sections:
            print("starting")
            starting.measure(figures, places, repeats=size.starts)
    return figures


def _measure_history(
    figures: Figures, places: Places, known: list[rivals.Rival], size: Size, sections: list[str]
) -> None:
    short_log, long_log = places.fresh(), places.fresh()
    asyncio.run(history.fill(short_log, size.short_log))
    asyncio.run(history.fill(long_log, size.long_log))
    figures.add("bytes an event takes in a long log", places.size(long_log) / size.long_log, "bytes")
    if "history" in sections:
        history.measure(figures, places, known, long_log, repeats=size.repeats, replayed=size.replayed)
    if "memory" in sections:
        memory.measure(figures, places, short_log, long_log, (size.short_log, size.long_log))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small run to try it out; its figures mean little")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--to", type=Path, default=HERE, help="the folder for results.json and chart.svg")
    arguments = parser.parse_args()
    started = time.perf_counter()
    figures = run(QUICK if arguments.quick else FULL, list(arguments.only), quick=arguments.quick)
    figures.write(arguments.to / "results.json")
    chart.write(figures, arguments.to / "chart.svg")
    print(report.as_text(figures))
    print(f"measured in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
