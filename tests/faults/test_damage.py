"""A damaged file: no altered byte crashes a command, and `recover` saves the entries that still hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.samples import make_sample
from tests.given import OWNER
from tests.runner import podledger, podledger_json
from tests.seeds import Count, seeds

READS = (
    ("events",),
    ("events", "--json"),
    ("pods", "--all"),
    ("pods", "--tree", "--json"),
    ("notifications",),
    ("rejected",),
)
REGION = 64
PAGE = 4096


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a small ledger."""
    path = tmp_path_factory.mktemp("whole") / "ledger.db"
    asyncio.run(make_sample(path))
    return path.read_bytes()


def flipped(whole: bytes, at: int, length: int = REGION) -> bytes:
    return whole[:at] + bytes(byte ^ 0xFF for byte in whole[at : at + length]) + whole[at + length :]


def damaged(whole: bytes, seed: int) -> bytes:
    """Return the file with one place damaged: bits, bytes or a page altered, or the end cut off."""
    dice = random.Random(seed)
    at = dice.randrange(len(whole))
    match dice.choice(("bit", "flip", "zero", "page", "cut")):
        case "bit":
            return whole[:at] + bytes([whole[at] ^ 1 << dice.randrange(8)]) + whole[at + 1 :]
        case "flip":
            return flipped(whole, at)
        case "zero":
            return whole[:at] + bytes(len(whole[at : at + REGION])) + whole[at + REGION :]
        case "page":
            start = at // PAGE * PAGE
            return whole[:start] + dice.randbytes(PAGE) + whole[start + PAGE :]
        case _:
            return whole[:at]


def check(folder: Path, data: bytes) -> None:
    """Check that every command ends with a proper status, and that the recovered ledger verifies."""
    path, saved = folder / "damaged.db", folder / "saved.db"
    for file in folder.glob("*.db*"):
        file.unlink()
    path.write_bytes(data)
    path.chmod(0o600)
    for command in READS:
        assert podledger("--db", path, *command, status=None).status in (0, 1)
    verified, doctor = (
        podledger_json("--db", path, "verify", status=None),
        podledger_json("--db", path, "doctor", status=None),
    )
    recovered = podledger("recover", path, saved, "--json", status=None)
    lost = verified["ok"] < doctor["ok"] and [p for p in verified["problems"] if p["check"] in ("chain", "log")]
    assert not lost, "the doctor must see the damage to the log"
    assert not (verified["ok"] and recovered.status), "a whole ledger is recovered whole"
    if saved.exists():
        assert podledger_json("--db", saved, "--ledger", OWNER, "verify", status=None)["ok"]


@pytest.mark.parametrize("seed", seeds(8))
def test_damaged_file_crashes_no_command(tmp_path: Path, whole: bytes, seed: int) -> None:
    check(tmp_path, damaged(whole, seed))


def regions(whole: bytes) -> Iterator[bytes]:
    for at in range(0, len(whole), REGION):
        yield flipped(whole, at)
    for at in range(0, len(whole), PAGE // 4):
        yield whole[:at]


@pytest.mark.soak
def test_every_region_of_a_file_flipped_and_cut(tmp_path: Path, whole: bytes, record_property: Count) -> None:
    files = 0
    for data in regions(whole):
        check(tmp_path, data)
        files += 1
    record_property("damaged files", files)


@pytest.mark.soak
@pytest.mark.parametrize("seed", seeds(1000))
def test_damage_at_random(tmp_path: Path, whole: bytes, seed: int, record_property: Count) -> None:
    check(tmp_path, damaged(whole, seed))
    record_property("damaged files", 1)


def test_damage_is_reported_from_the_first_lost_seq(tmp_path: Path, whole: bytes) -> None:
    """The page with message 4 is overwritten: only the entries on it are lost."""
    start = whole.index(b"message 4 ") // PAGE * PAGE
    path = tmp_path / "damaged.db"
    path.write_bytes(whole[:start] + b"\xa5" * PAGE + whole[start + PAGE :])
    path.chmod(0o600)

    problems = podledger_json("--db", path, "verify", status=None)["problems"]
    findings = podledger_json("--db", path, "doctor", status=None)["findings"]
    recovered = podledger_json("recover", path, tmp_path / "saved.db", status=None)[0]

    first = min(problem["seq"] for problem in problems if problem["seq"])
    assert 1 < first <= 4 * 5 + 3
    assert any(f["check"] == "log" and f["level"] == "error" and f"seq {first}" in f["detail"] for f in findings)
    assert recovered["lost"][0]["first"] == first
    assert recovered["kept"] == first - 1
    gone = sum(loss["last"] - loss["first"] + 1 for loss in recovered["lost"])
    assert recovered["kept"] + recovered["recorded_anew"] + gone == 40


def test_damaged_wal_loses_nothing_checkpointed(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "damaged.db"
    path.write_bytes(whole)
    path.with_name("damaged.db-wal").write_bytes(b"\x37\x7f\x06\x82" + b"\xff" * 10_000)
    assert podledger_json("--db", path, "verify", status=None)["events"] == 40
