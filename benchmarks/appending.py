"""Rows 1 to 3 and 8: append one at a time, from many tasks, and in bulk; bytes per event on disk."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bare, workload
from benchmarks.bare import Log
from benchmarks.figures import Figures
from benchmarks.places import Places
from benchmarks.rivals import Rival
from benchmarks.workload import WireEvent
from podledger import Ledger

TASKS = 200
RIVAL_TASKS = 50
BULK, SMALL_BULK = 5_000, 1_000


async def together(path: Path, events: Sequence[WireEvent], tasks: int) -> float:
    """Append from several tasks, each waiting for the commit of each event; return events per second."""
    async with Ledger.open(path, "root") as ledger:

        async def append_all(share: Sequence[WireEvent]) -> None:
            for event in share:
                await ledger.append(event)

        started = time.perf_counter()
        await asyncio.gather(*(append_all(events[number::tasks]) for number in range(tasks)))
        return len(events) / (time.perf_counter() - started)


async def in_bulk(path: Path, events: Sequence[WireEvent], size: int) -> float:
    """Append with `append_many`, `size` events per call; return events per second."""
    async with Ledger.open(path, "root") as ledger:
        started = time.perf_counter()
        for start in range(0, len(events), size):
            await ledger.append_many(events[start : start + size])
        return len(events) / (time.perf_counter() - started)


def imported(path: Path, file: Path, count: int) -> float:
    """Run `podledger import` on wire lines; return events per second, without the time for an empty file."""
    return count / max(1e-9, _import(path, file) - _import(path, Path(os.devnull)))


def _import(path: Path, file: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "podledger", "--db", str(path), "import", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(figures: Figures, places: Places, rivals: Sequence[Rival], *, repeats: int, count: int) -> None:
    """Alternate between podledger and bare SQLite, then each rival and podledger with as many tasks."""
    events = workload.events(count)
    few = events[: count // 20]
    file = places.fresh("jsonl")
    file.write_bytes(b"".join(workload.wire_line(event) for event in events))
    first = places.fresh()
    asyncio.run(in_bulk(first, events, BULK))
    log = bare.log_of(first)
    gc.freeze()  # so that the collector does not scan the test data while we measure
    for _ in range(repeats):
        _measure_once(figures, places, events, few, file, log)
        for rival in rivals:
            path = places.fresh()
            figures.add(f"{rival.name}, {RIVAL_TASKS} at once", rival.append_each(path, few, RIVAL_TASKS))
    alone = places.fresh()
    bare.insert(alone, log, 100)
    figures.add("bytes an event takes", places.size(first) / count, "bytes")
    figures.add("bytes a bare row takes", places.size(alone) / count, "bytes")
    _compare(figures, rivals)


def _measure_once(
    figures: Figures, places: Places, events: list[WireEvent], few: list[WireEvent], file: Path, log: Log
) -> None:
    short = log._replace(rows=log.rows[: len(few)])
    figures.add("bare sqlite3, 1 row a commit", bare.insert(places.fresh(), short, 1))
    figures.add("podledger, 1 at a time", asyncio.run(together(places.fresh(), few, 1)))
    figures.add("bare sqlite3, 100 rows a commit", bare.insert(places.fresh(), log, 100))
    figures.add(f"podledger, {TASKS} at once", asyncio.run(together(places.fresh(), events, TASKS)))
    figures.add("podledger, append_many", asyncio.run(in_bulk(places.fresh(), events, BULK)))
    figures.add("podledger, append_many in thousands", asyncio.run(in_bulk(places.fresh(), events, SMALL_BULK)))
    imports = places.fresh()
    asyncio.run(in_bulk(imports, few[:1], 1))
    figures.add("podledger, import", imported(imports, file, len(events)))
    figures.add("bare sqlite3, 100 rows a commit, nulls left out", bare.insert(places.fresh(), log, 100, nulls=False))
    figures.add(f"podledger, {RIVAL_TASKS} at once", asyncio.run(together(places.fresh(), few, RIVAL_TASKS)))


def _compare(figures: Figures, rivals: Sequence[Rival]) -> None:
    bare_rate = "bare sqlite3, 100 rows a commit"
    many = f"podledger, {TASKS} at once"
    fastest = figures.fastest([f"{rival.name}, {RIVAL_TASKS} at once" for rival in rivals])
    figures.compare(1, "one durable append at a time", "podledger, 1 at a time", "bare sqlite3, 1 row a commit")
    figures.compare(2, f"{TASKS} tasks, each waiting for its commit", many, bare_rate, at_least=0.30)
    if fastest:
        few = f"podledger, {RIVAL_TASKS} at once"
        figures.compare(2, f"the same, compared with {fastest}", many, fastest, at_least=10)
        figures.compare(2, f"{RIVAL_TASKS} tasks, compared with {fastest}", few, fastest)
    figures.compare(3, f"append_many, {BULK:,} per call", "podledger, append_many", bare_rate, at_least=0.50)
    figures.compare(3, f"append_many, {SMALL_BULK:,} per call", "podledger, append_many in thousands", bare_rate)
    figures.compare(3, "import of wire lines", "podledger, import", bare_rate, at_least=0.50)
    figures.compare(8, "bytes on disk, compared with a bare row", "bytes an event takes", "bytes a bare row takes")
