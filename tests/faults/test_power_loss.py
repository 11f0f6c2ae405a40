"""Power loss at any moment: acknowledged entries survive, and the ledger verifies."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest

from podledger import Ledger
from podledger.core.errors import PodledgerError
from tests.faults.operations import NAME, check_ledger
from tests.faults.power import Record, lose_power, read_journal
from tests.faults.preload import preloaded
from tests.given import OWNER
from tests.seeds import SEED, Count, seeds


@functools.cache
def history(synchronous: str = "FULL", rounds: int = 2) -> tuple[Path, list[Record]]:
    """Record the changes of a process to the files of a folder in which it creates a ledger."""
    folder = Path(tempfile.mkdtemp(prefix="podledger-power-"))
    preloaded("record", folder / "work", folder / "journal", rounds, synchronous)
    return folder / "work", read_journal(folder / "journal")


async def survives(target: Path, seed: int, synchronous: str = "FULL") -> None:
    source, records = history(synchronous)
    acked = lose_power(records, source, target, seed)
    await check_ledger(target, acked)
    async with Ledger.open(target / NAME, OWNER) as ledger:
        assert (await ledger.append_many([]), ledger.name) == ([], OWNER)


@pytest.mark.parametrize("seed", seeds(24))
async def test_acknowledged_entries_survive_power_loss(tmp_path: Path, seed: int) -> None:
    await survives(tmp_path / "after", seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", seeds(500))
async def test_acknowledged_entries_survive_500_power_losses(tmp_path: Path, seed: int, record_property: Count) -> None:
    await survives(tmp_path / "after", seed)
    record_property("losses", 1)


async def test_power_loss_with_a_weaker_setting_is_detected(tmp_path: Path) -> None:
    """With `synchronous=NORMAL` acknowledged entries are lost, which proves that the tests above would notice."""
    for seed in range(SEED, SEED + 60):
        try:
            await survives(tmp_path / str(seed), seed, "NORMAL")
        except (AssertionError, PodledgerError) as loss:
            assert "acknowledged entries are lost" in str(loss)  # noqa: PT017 - any of the seeds may be the one
            return
    pytest.fail("nothing was lost")
