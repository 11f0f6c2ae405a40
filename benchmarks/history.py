"""Rows 5 and 6: a long log rebuilt and verified; the registry and the holders of a path at random moments of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import workload
from benchmarks.figures import Figures
from benchmarks.places import Places
from benchmarks.rivals import Rival
from podledger import Ledger
from podledger.queries.replay import ReplayOptions

BULK = 5_000
QUESTIONS = 40
REFOLDS = 3


async def fill(path: Path, count: int) -> None:
    """A log of so many events."""
    async with Ledger.open(path, "root") as ledger:
        for batch in workload.batches(count, BULK):
            await ledger.append_many(batch)


async def rebuild(path: Path) -> float:
    """Events of the log a second."""
    async with Ledger.open(path) as ledger:
        count = (await ledger.head()).head_seq
        started = time.perf_counter()
        assert await ledger.rebuild() == 0
        return count / (time.perf_counter() - started)


async def verify(path: Path) -> float:
    """Events of the log a second."""
    async with Ledger.open(path) as ledger:
        started = time.perf_counter()
        certificate = await ledger.verify()
        assert certificate.ok
        return certificate.events / (time.perf_counter() - started)


def measure(
    figures: Figures, places: Places, rivals: Sequence[Rival], long_log: Path, *, repeats: int, replayed: int
) -> None:
    """Rebuild, verify and each rival's replay in turn; then the questions."""
    events = workload.events(replayed)
    stores = {rival.name: places.fresh() for rival in rivals}
    for rival in rivals:
        rival.fill(stores[rival.name], events)
    for _ in range(repeats):
        figures.add("podledger, rebuild", asyncio.run(rebuild(long_log)))
        for rival in rivals:
            _, rate = rival.replay(stores[rival.name])
            figures.add(f"{rival.name}, replay", rate)
        figures.add("podledger, verify", asyncio.run(verify(long_log)))
    fastest = figures.fastest([f"{rival.name}, replay" for rival in rivals])
    if fastest:
        figures.compare(5, f"rebuild beside {fastest}", "podledger, rebuild", fastest, at_least=10)
        figures.compare(5, f"verify beside {fastest}", "podledger, verify", fastest)
    asyncio.run(ask(figures, long_log))
    figures.compare(6, "pods --at, beside a refold", "refold to a moment", "pods at a moment", at_least=200)
    figures.compare(6, "holders --at, beside a refold", "refold to a moment", "holders at a moment", at_least=2_000)


async def ask(figures: Figures, path: Path) -> None:
    """Questions about random moments; a refold from the start to some of them, which tells the same."""
    chance = random.Random(2)
    async with Ledger.open(path) as ledger:
        head = (await ledger.head()).head_seq
        moments = [chance.randint(1, head) for _ in range(QUESTIONS)]
        for moment in moments[:REFOLDS]:
            started = time.perf_counter()
            await ledger.replay(ReplayOptions(at=moment))
            figures.add("refold to a moment", time.perf_counter() - started, "s")
        pods, holders = [], []
        for moment in moments:
            path_asked = workload.path_of(workload.any_pod(chance))
            started = time.perf_counter()
            await ledger.pods(at=moment)
            pods.append(time.perf_counter() - started)
            started = time.perf_counter()
            await ledger.holders(path_asked, at=moment)
            holders.append(time.perf_counter() - started)
    for name, times in (("pods at a moment", pods), ("holders at a moment", holders)):
        for part in range(REFOLDS):
            share = sorted(times[part::REFOLDS])
            figures.add(name, share[len(share) // 2], "s")
