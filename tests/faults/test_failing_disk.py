"""A disk that fails or is full: the caller gets an error, acknowledged entries survive, and work resumes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from podledger import Ledger
from podledger.core.entries import Entry
from podledger.core.errors import StorageError
from podledger.core.fields import ScopeRule
from tests.faults.operations import NAME, OPERATIONS, check_open
from tests.faults.preload import FOREVER, preloaded
from tests.given import OWNER, spawned, writes
from tests.seeds import SEED, Count

KNOWN_OUTCOMES = {"done", "Input/output error", "No space left on device"}


def are_clear(outcomes: dict[str, int]) -> bool:
    """Return whether each outcome is success or an error of podledger that names the cause."""
    return all(text in KNOWN_OUTCOMES or "(SQLITE_" in text or "was not written" in text for text in outcomes)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("error", "times"), [("EIO", 1), ("ENOSPC", FOREVER)])
def test_some_calls_fail(tmp_path: Path, operation: str, error: str, times: int) -> None:
    result = preloaded("fail", operation, tmp_path, error, times, 5, SEED)
    assert are_clear(result["outcomes"])


@pytest.mark.soak
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("times", [1, 3, FOREVER])
def test_every_call_fails(tmp_path: Path, operation: str, error: str, times: int, record_property: Count) -> None:
    result = preloaded("fail", operation, tmp_path, error, times, 100_000, SEED)
    assert are_clear(result["outcomes"])
    record_property("failed calls", result["calls"])


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("times", [1, 2, FOREVER])
def test_open_ledger_recovers_by_itself(tmp_path: Path, error: str, times: int) -> None:
    result = preloaded("recover", tmp_path / "work", error, times, 12, SEED)
    assert result["failed"] >= 5


def wide(rules: int) -> tuple[ScopeRule, ...]:
    """Return a scope of long paths, about 4 KB each."""
    return writes(*(f"/w/{number}/" + "x" * 4_000 for number in range(rules)))


async def append_until_full(ledger: Ledger, acked: list[Entry]) -> None:
    while True:
        acked.append(await ledger.append(spawned(f"pod-{len(acked)}", scope=wide(5))))


async def test_full_disk_raises_until_there_is_room(small_disk: Path) -> None:
    acked: list[Entry] = []
    async with Ledger.open(small_disk / NAME, OWNER) as ledger:
        with pytest.raises(StorageError, match="the disk is full"):
            await append_until_full(ledger, acked)
        with pytest.raises(StorageError, match="the disk is full"):
            await ledger.append(spawned("again", scope=wide(10)))
        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        acked.append(await ledger.append(spawned("after", scope=wide(10))))
        await check_open(ledger, [(entry.seq, entry.digest) for entry in acked])
