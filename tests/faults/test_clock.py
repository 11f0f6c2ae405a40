"""Clocks that jump, and times in other zones."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podledger import Ledger, ScopeSubDelegated
from podledger.client.spawning import PreparedSpawn, prepare_spawn
from podledger.core.fields import Stamp
from tests.clocks import Clock
from tests.given import OWNER, incarnation, spawned, stopped
from tests.runner import podledger, podledger_process

NOON = datetime(2026, 3, 29, 12, tzinfo=UTC)
HOURS = st.integers(min_value=-100_000, max_value=100_000)


async def entries_at(folder: Path, times: list[datetime]) -> list[datetime]:
    """Append one event at each of `times` on the clock; return when the ledger recorded them."""
    clock = Clock(int(times[0].timestamp()), step_s=0)
    recorded = []
    async with Ledger.open(folder / "a.db", OWNER, clock=clock) as ledger:
        for number, moment in enumerate(times):
            clock.now_s = int(moment.timestamp())
            recorded.append((await ledger.append(spawned(f"pod-{number}"))).recorded_at)
    return recorded


@settings(max_examples=15)
@given(jumps=st.lists(HOURS, min_size=1, max_size=8))
def test_recorded_at_never_decreases(tmp_path_factory: pytest.TempPathFactory, jumps: list[int]) -> None:
    times = [NOON + timedelta(hours=jump) for jump in jumps]
    recorded = asyncio.run(entries_at(tmp_path_factory.mktemp("clock"), times))
    assert recorded == sorted(recorded)
    assert recorded == [max(times[: number + 1]) for number in range(len(times))]


async def test_pod_respawned_after_the_clock_was_set_back_is_not_late(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "a.db", OWNER) as ledger:
        ahead = prepare_spawn("child", "me.sock", after=incarnation(0xF000_0000))  # by a process whose clock was ahead
        first = await ledger.append(delegation_of(ahead))
        await ledger.append(stopped("child").model_copy(update={"stamp": Stamp.naming(ahead.incarnation)}))
        again = await ledger.prepare_spawn("child", "me.sock")
        second = await ledger.append(delegation_of(again))
    assert (first.outcome, second.outcome) == ("applied", "applied")


def delegation_of(spawn: PreparedSpawn) -> ScopeSubDelegated:
    """Return the delegation of a spawned pod as its parent's owner receives it."""
    return spawn.delegated("middle").model_copy(update={"stamp": Stamp.naming(spawn.incarnation)})


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
async def test_times_without_an_offset_are_utc(tmp_path: Path, zone: str) -> None:
    await entries_at(tmp_path, [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=2)])
    queries = {
        "2026-03-29T13:30:00": 2,
        "2026-03-29T13:30:00Z": 2,
        "2026-03-29T13:30:00+02:00": 0,
        "2026-03-29T13:30:00-05:00": 3,
    }
    for query, expected in queries.items():
        done = podledger_process("--db", tmp_path / "a.db", "pods", "--at", query, "--json", TZ=zone)
        assert len(done.json()) == expected, query


async def test_same_moment_in_any_zone_is_the_same_seq(tmp_path: Path) -> None:
    await entries_at(tmp_path, [NOON, NOON + timedelta(hours=1)])
    async with Ledger.open(tmp_path / "a.db") as ledger:
        for offset in (-11, 0, 5.5, 14):
            moment = (NOON + timedelta(minutes=30)).astimezone(timezone(timedelta(hours=offset)))
            assert len(await ledger.pods(at=moment)) == 1


def test_invalid_time_is_a_usage_error(tmp_path: Path) -> None:
    podledger("--db", tmp_path / "a.db", "init", OWNER)
    podledger("--db", tmp_path / "a.db", "pods", "--at", "noon", status=2)
