"""Rows 1 to 3 and 8: events appended one at a time, by many tasks at once, and in bulk; what a kept event takes."""

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
    """Tasks that append at the same time, each waiting for the commit of each of its events; events a second."""
    async with Ledger.open(path, "root") as ledger:

        async def append_all(share: Sequence[WireEvent]) -> None:
            for event in share:
                await ledger.append(event)

        started = time.perf_counter()
        await asyncio.gather(*(append_all(events[number::tasks]) for number in range(tasks)))
        return len(events) / (time.perf_counter() - started)


async def in_bulk(path: Path, events: Sequence[WireEvent], size: int) -> float:
    """`append_many`, so many at a time; events a second."""
    async with Ledger.open(path, "root") as ledger:
        started = time.perf_counter()
        for start in range(0, len(events), size):
            await ledger.append_many(events[start : start + size])
        return len(events) / (time.perf_counter() - started)


def imported(path: Path, file: Path, count: int) -> float:
    """`podledger import` of a file of wire lines, less what it takes for an empty one; events a second."""
    return count / max(1e-9, _import(path, file) - _import(path, Path(os.devnull)))


def _import(path: Path, file: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "podledger", "--db", str(path), "import", str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(figures: Figures, places: Places, rivals: Sequence[Rival], *, repeats: int, count: int) -> None:
    """Podledger and bare SQLite in turn, repeat by repeat; then each rival, and podledger with as many tasks."""
    events = workload.events(count)
    few = events[: count // 20]
    file = places.fresh("jsonl")
    file.write_bytes(b"".join(workload.wire_line(event) for event in events))
    first = places.fresh()
    asyncio.run(in_bulk(first, events, BULK))
    log = bare.log_of(first)
    gc.freeze()  # what is measured with is not to be looked through by the collector while it is measured
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
        figures.compare(2, f"the same beside {fastest}", many, fastest, at_least=10)
        figures.compare(2, f"{RIVAL_TASKS} tasks beside {fastest}", f"podledger, {RIVAL_TASKS} at once", fastest)
    figures.compare(3, f"append_many, {BULK:,} a call", "podledger, append_many", bare_rate, at_least=0.50)
    figures.compare(3, f"append_many, {SMALL_BULK:,} a call", "podledger, append_many in thousands", bare_rate)
    figures.compare(3, "import of wire lines", "podledger, import", bare_rate, at_least=0.50)
    figures.compare(8, "bytes on disk, times a bare row's", "bytes an event takes", "bytes a bare row takes")
