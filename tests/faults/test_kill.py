"""A process killed at any call: acknowledged entries survive, the ledger verifies, and no operation is half done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.operations import OPERATIONS
from tests.faults.preload import preloaded
from tests.seeds import SEED, Count


@pytest.mark.parametrize("operation", OPERATIONS)
def test_kill_at_some_calls(tmp_path: Path, operation: str) -> None:
    result = preloaded("kill", operation, tmp_path, 4, SEED)
    assert result["killed"] >= 4


@pytest.mark.soak
@pytest.mark.parametrize("operation", OPERATIONS)
def test_kill_at_every_call(tmp_path: Path, operation: str, record_property: Count) -> None:
    result = preloaded("kill", operation, tmp_path, 100_000, SEED)
    assert result["killed"] >= 2 * result["calls"] - 2
    record_property("kills", result["killed"])


def test_kill_under_load(tmp_path: Path) -> None:
    result = preloaded("load", tmp_path / "work", 6, SEED)
    assert result["acknowledged"] > 0


@pytest.mark.soak
def test_many_kills_under_load_on_one_file(tmp_path: Path, record_property: Count) -> None:
    result = preloaded("load", tmp_path / "work", 300, SEED)
    assert result["acknowledged"] > 10_000
    record_property("kills", 300)
    record_property("acknowledged entries", result["acknowledged"])
