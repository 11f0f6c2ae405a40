"""Recovery: entries that still hold go into a new ledger, and the others are listed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from podledger import Entry, Ledger, TurnEnded
from podledger.core.digest import chain_digest
from podledger.core.errors import StorageError
from podledger.doctor.recover import recover
from podledger.integrity.scan import ALTERED
from podledger.store.group_commit import GroupCommit
from tests.faults.samples import make_sample
from tests.given import OWNER
from tests.runner import podledger, podledger_json
from tests.support import alter


async def test_whole_ledger_is_recovered_entry_for_entry(tmp_path: Path) -> None:
    await make_sample(tmp_path / "a.db", rounds=2)
    recovered = podledger("recover", tmp_path / "a.db", tmp_path / "b.db", status=None)
    assert recovered.status == 0
    async with Ledger.open(tmp_path / "a.db") as one, Ledger.open(tmp_path / "b.db") as other:
        assert [entry async for entry in one.entries()] == [entry async for entry in other.entries()]
        assert (await other.head()).parent_socket == "/run/nobody.sock"
        assert [row.raw for row in await other.rejected()] == [row.raw for row in await one.rejected()]
        assert await other.outbox_items() == []


async def test_altered_entry_is_lost_and_later_ones_are_renumbered(tmp_path: Path) -> None:
    last = await make_sample(tmp_path / "a.db", rounds=2)
    alter(tmp_path / "a.db", "UPDATE events SET pod_name = 'other' WHERE seq = 4")
    result = podledger("recover", tmp_path / "a.db", tmp_path / "b.db", "--json", status=None)
    assert result.status == 1
    assert result.json()[0]["lost"] == [{"first": 4, "last": 4, "reason": ALTERED}]
    assert result.json()[0]["moved"] == [{"first": 5, "last": last, "now": 4}]
    async with Ledger.open(tmp_path / "a.db") as one, Ledger.open(tmp_path / "b.db") as other:
        before = {entry.seq: entry async for entry in one.entries()}
        after = {entry.seq: entry async for entry in other.entries()}
        assert [after[seq] for seq in (1, 2, 3)] == [before[seq] for seq in (1, 2, 3)]
        assert all(after[seq].payload == before[seq + 1].payload for seq in range(4, last))
        assert all(after[seq].recorded_us == before[seq + 1].recorded_us for seq in range(4, last))
        assert (await other.rejected())[-1].reason.startswith("seq 4 of the damaged ledger")
        assert (await other.verify()).ok


async def test_entry_after_a_missing_one_is_lost(tmp_path: Path) -> None:
    await make_sample(tmp_path / "a.db", rounds=2)
    alter(tmp_path / "a.db", "DELETE FROM events WHERE seq = 4")
    lost = podledger_json("recover", tmp_path / "a.db", tmp_path / "b.db", status=None)[0]["lost"]
    assert [(loss["first"], loss["last"]) for loss in lost] == [(4, 4), (5, 5)]


async def test_missing_end_of_the_log_is_listed(tmp_path: Path) -> None:
    last = await make_sample(tmp_path / "a.db", rounds=2)
    alter(tmp_path / "a.db", f"DELETE FROM events WHERE seq > {last - 2}")
    lost = podledger_json("recover", tmp_path / "a.db", tmp_path / "b.db", status=None)[0]["lost"]
    assert [(loss["first"], loss["last"]) for loss in lost] == [(last - 1, last)]


async def test_damaged_index_loses_no_entry(tmp_path: Path) -> None:
    """The index over the log's key is overwritten."""
    path = tmp_path / "a.db"
    last = await make_sample(path, rounds=2)
    with sqlite3.connect(path) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_events_1'"
        (page,) = connection.execute(query).fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(data)
    recovered = podledger_json("recover", path, tmp_path / "b.db", status=None)[0]
    assert (recovered["kept"], recovered["lost"]) == (last, [])


async def test_existing_target_is_refused(tmp_path: Path) -> None:
    await make_sample(tmp_path / "a.db", rounds=1)
    result = podledger("recover", tmp_path / "a.db", tmp_path / "a.db", status=None)
    assert (result.status, "exists already" in result.err) == (1, True)
    podledger("recover", tmp_path / "none.db", tmp_path / "b.db", status=1)
    (tmp_path / "garbage").write_bytes(b"garbage" * 1000)
    podledger("recover", tmp_path / "garbage", tmp_path / "b.db", "--ledger", OWNER, status=1)


async def test_entry_that_is_no_event_becomes_a_rejected_line(tmp_path: Path) -> None:
    """Its chain holds, as in a log that a later podledger wrote."""
    async with Ledger.open(tmp_path / "a.db", OWNER) as ledger:
        await ledger.append_many([TurnEnded(pod_name="p")] * 4)
    payload = '{"kind":"later","pod_name":"p"}'
    with sqlite3.connect(tmp_path / "a.db") as db:
        db.execute("DROP TRIGGER events_no_update")
        db.execute("UPDATE events SET payload = ? WHERE seq = 3", (payload,))
        digest = "0" * 64
        for row in db.execute("SELECT * FROM events ORDER BY seq").fetchall():
            digest = chain_digest(digest, row)
            db.execute("UPDATE events SET digest = ? WHERE seq = ?", (digest, row[1]))
    db.close()

    recovered = podledger_json("recover", tmp_path / "a.db", tmp_path / "b.db", status=None)[0]

    assert (recovered["kept"], recovered["recorded_anew"]) == (2, 1)
    assert [(loss["first"], loss["last"]) for loss in recovered["lost"]] == [(3, 3)]
    async with Ledger.open(tmp_path / "b.db") as other:
        (rejected,) = await other.rejected()
    assert json.loads(rejected.raw)["payload"] == payload
    assert rejected.reason.startswith("seq 3 of the damaged ledger: its payload is not an event")


async def test_failed_recovery_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_sample(tmp_path / "a.db", rounds=1)

    async def full(*_: object) -> list[Entry]:
        raise StorageError("the disk is full")

    monkeypatch.setattr(GroupCommit, "restore", full)
    with pytest.raises(StorageError):
        await recover(tmp_path / "a.db", tmp_path / "b.db")

    assert [file.name for file in tmp_path.iterdir() if "b.db" in file.name] == []
