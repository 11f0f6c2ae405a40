"""Rows 5 and 6: rebuild and verify a long log; query the registry and a path's holders at random moments."""

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
REPLAYS = 3


async def fill(path: Path, count: int) -> None:
    """Create a log of `count` events."""
    async with Ledger.open(path, "root") as ledger:
        for batch in workload.batches(count, BULK):
            await ledger.append_many(batch)


async def rebuild(path: Path) -> float:
    """Rebuild the projections; return events of the log per second."""
    async with Ledger.open(path) as ledger:
        count = (await ledger.head()).head_seq
        started = time.perf_counter()
        assert await ledger.rebuild() == 0
        return count / (time.perf_counter() - started)


async def verify(path: Path) -> float:
    """Verify the ledger; return events of the log per second."""
    async with Ledger.open(path) as ledger:
        started = time.perf_counter()
        result = await ledger.verify()
        assert result.ok
        return result.events / (time.perf_counter() - started)


def measure(
    figures: Figures, places: Places, rivals: Sequence[Rival], long_log: Path, *, repeats: int, replayed: int
) -> None:
    """Alternate between rebuild, verify and each rival's replay; then run the queries."""
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
        replay = f"compared with the replay of {fastest.removesuffix(', replay')}"
        figures.compare(5, f"rebuild, {replay}", "podledger, rebuild", fastest, at_least=10)
        figures.compare(5, f"verify, {replay}", "podledger, verify", fastest)
    asyncio.run(ask(figures, long_log))
    replay = "compared with a replay up to then"
    figures.compare(6, f"pods --at, {replay}", "replay up to a moment", "pods at a moment", at_least=200)
    figures.compare(6, f"holders --at, {replay}", "replay up to a moment", "holders at a moment", at_least=2_000)


async def ask(figures: Figures, path: Path) -> None:
    """Query random moments; for some of them, also replay the log up to that moment."""
    chance = random.Random(2)
    async with Ledger.open(path) as ledger:
        head = (await ledger.head()).head_seq
        moments = [chance.randint(1, head) for _ in range(QUESTIONS)]
        for moment in moments[:REPLAYS]:
            started = time.perf_counter()
            await ledger.replay(ReplayOptions(at=moment))
            figures.add("replay up to a moment", time.perf_counter() - started, "s")
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
        for part in range(REPLAYS):
            share = sorted(times[part::REPLAYS])
            figures.add(name, share[len(share) // 2], "s")
