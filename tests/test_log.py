"""The log: numbered without gaps, chained, kept as it arrived, and protected from changes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from podledger import ledger as ledger_module
from podledger.core.digest import chain_digest
from podledger.core.entries import Entry, Sender, draft
from podledger.core.errors import InvalidMomentError
from podledger.core.events import Errored, LedgerEvent
from podledger.ledger import Ledger
from podledger.store.log import Rejection
from tests import independent_verifier, strategies
from tests.clocks import Clock
from tests.given import OWNER, delegated, incarnation, reclaimed, spawned, stamped, stopped, turned, writes
from tests.support import connected, fresh_ledger, new_database, rows_of

ODD_TEXTS = ["", "\n", "a\nb", "\x00", "\x1b[31m", "é", "\U0001f600", "'; DROP TABLE events; --", " " * 10_000]


async def collected(ledger: Ledger, **selection: Any) -> list[int]:
    return [entry.seq async for entry in ledger.entries(**selection)]


async def test_events_are_numbered_from_one_without_a_gap() -> None:
    async with fresh_ledger() as ledger:
        first = await ledger.append(spawned("p"))
        rest = await ledger.append_many([turned("p"), turned("nobody"), stopped("p"), stopped("p"), turned("p")])
        assert [entry.seq for entry in (first, *rest)] == [1, 2, 3, 4, 5, 6]
        assert await collected(ledger) == [1, 2, 3, 4, 5, 6]
        assert [entry.outcome for entry in rest] == ["noted", "unknown", "applied", "duplicate", "late"]


async def test_appended_entry_is_read_back_unchanged() -> None:
    async with fresh_ledger() as ledger:
        event = stamped(delegated("p", scope=writes("/srv")), 7, 5, sequence=3)
        appended = await ledger.append(event)
        (read,) = [entry async for entry in ledger.entries()]
        assert read == appended
        assert read.event == event
        assert (read.ledger, read.evidence, read.kind, read.pod_name) == (OWNER, "reported", event.kind, "p")
        assert (read.subject, read.source, read.sequence) == (incarnation(7), incarnation(5), 3)
        assert read.sent_us == 1_769_868_180_000_000
        assert read.recorded_at.tzinfo is UTC


async def test_payload_is_kept_exactly_as_it_came() -> None:
    odd = '{ "pod_name" : "p" ,"kind":"turn_ended", "extra": [1.50, {"é": null}], "stamp": {"id": 7} }'
    async with fresh_ledger() as ledger:
        sender = Sender(4_000_000, 0, 1001)
        (entry,) = await ledger.commits.append([draft(turned("p"), OWNER, payload=odd, sender=sender)])
        assert (entry.payload, entry.sender) == (odd, sender)
        assert rows_of(ledger.database.path, "events")["events"][0][6:10] == (odd, 4_000_000, 0, 1001)
        assert entry.stamp_id is None


@pytest.mark.parametrize("text", ODD_TEXTS)
async def test_any_message_is_kept_unchanged(text: str) -> None:
    async with fresh_ledger() as ledger:
        entry = await ledger.append(Errored(pod_name="p", message=text))
        assert entry.event == Errored(pod_name="p", message=text)
        assert (await ledger.verify()).ok
        assert independent_verifier.check(str(ledger.database.path), OWNER) == entry.digest


async def test_local_fact_has_no_sender() -> None:
    async with fresh_ledger() as ledger:
        events: list[LedgerEvent] = [spawned("p"), reclaimed("p"), turned("p")]
        entries = await ledger.append_many(events)
        assert [(entry.evidence, entry.sender) for entry in entries] == [
            *[("observed", None), ("inferred", None), ("reported", None)]
        ]
        assert (await ledger.append(reclaimed("p"), evidence="observed")).evidence == "observed"


# Time


async def test_recorded_at_never_decreases() -> None:
    clock = Clock(100, step_s=0)
    async with fresh_ledger(clock=clock) as ledger:
        seconds = []
        for clock.now_s in (50, 50, 101, 0, -5, 102):
            seconds.append((await ledger.append(turned("p"))).recorded_us // 1_000_000)
        assert seconds == [50, 50, 101, 101, 101, 102]
        assert (await ledger.verify()).ok


async def test_clock_set_back_between_runs_changes_nothing(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    for start in (1_000, 10, 2_000):
        async with Ledger.open(path, OWNER, clock=Clock(start)) as ledger:
            await ledger.append_many([turned("p"), turned("p")])
    times = [row[2] // 1_000_000 for row in rows_of(path, "events")["events"]]
    assert times == sorted(times)
    assert (times[0], times[2], times[3]) == (1_001, 1_001, 1_001)
    assert times[4] >= 2_000


async def test_times_are_whole_microseconds_in_utc() -> None:
    async with fresh_ledger(clock=lambda: 1_700_000_000_123_456_789) as ledger:
        entry = await ledger.append(turned("p"))
        assert entry.recorded_at == datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC)
        assert entry.as_json()["recorded_at"] == "2023-11-14T22:13:20.123456Z"


# Append-only

NEW_ROW = "(ledger, seq, recorded_us, evidence, kind, pod_name, payload, outcome, rules, digest)"
VALUES = "('root', {seq}, 1, 'reported', 'turned', 'p', 'x', 'noted', 1, 'd')"
ATTACKS = {
    "update": "UPDATE events SET payload = 'x'",
    "update of the key": "UPDATE events SET seq = seq + 100",
    "update or replace": "UPDATE OR REPLACE events SET seq = 2 WHERE seq = 1",
    "update or ignore": "UPDATE OR IGNORE events SET payload = 'x'",
    "update from": "UPDATE events SET payload = 'x' FROM ledgers WHERE ledgers.name = events.ledger",
    "delete": "DELETE FROM events WHERE seq = 2",
    "delete all": "DELETE FROM events",
    "insert or replace": f"INSERT OR REPLACE INTO events {NEW_ROW} VALUES {VALUES.format(seq=1)}",
    "replace": f"REPLACE INTO events {NEW_ROW} VALUES {VALUES.format(seq=1)}",
    "upsert": f"INSERT INTO events {NEW_ROW} VALUES {VALUES.format(seq=1)} "
    "ON CONFLICT (ledger, seq) DO UPDATE SET payload = 'x'",
    "insert or replace from itself": "INSERT OR REPLACE INTO events SELECT * FROM events",
    "replace by rowid": f"INSERT OR REPLACE INTO events (rowid, {NEW_ROW[1:]} VALUES (1, {VALUES.format(seq=99)[1:]}",
}
REJECTED_ATTACKS = {
    "update": "UPDATE rejected SET reason = 'x'",
    "update or replace": "UPDATE OR REPLACE rejected SET number = 2 WHERE number = 1",
    "delete": "DELETE FROM rejected",
    "insert or replace": "INSERT OR REPLACE INTO rejected SELECT * FROM rejected",
    "upsert": "INSERT INTO rejected SELECT * FROM rejected WHERE true "
    "ON CONFLICT (ledger, number) DO UPDATE SET reason = 'x'",
    "replace by rowid": "INSERT OR REPLACE INTO rejected (rowid, ledger, number, recorded_us, raw, reason, digest) "
    "VALUES (1, 'root', 99, 1, x'00', 'r', 'd')",
}


@pytest.mark.parametrize("recursive", [0, 1], ids=["recursive off", "recursive on"])
@pytest.mark.parametrize(
    "attack",
    [*ATTACKS.values(), *REJECTED_ATTACKS.values()],
    ids=[*ATTACKS, *(f"rejected, {a}" for a in REJECTED_ATTACKS)],
)
async def test_triggers_refuse_every_change(attack: str, recursive: int) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p"), turned("p"), turned("p")])
        await ledger.commits.append([], [Rejection(b"x", "no", None), Rejection(b"y", "no", None)])
        before = rows_of(ledger.database.path, "events", "rejected")
        with connected(ledger.database.path) as attacker:
            attacker.execute(f"PRAGMA recursive_triggers = {recursive}")
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                attacker.execute(attack)
        assert rows_of(ledger.database.path, "events", "rejected") == before


async def test_ledger_row_cannot_be_deleted() -> None:
    async with fresh_ledger() as ledger:
        with connected(ledger.database.path) as attacker, pytest.raises(sqlite3.IntegrityError, match="never removed"):
            attacker.execute("DELETE FROM ledgers")


async def test_triggers_bind_the_writer_connection_too() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(turned("p"))
        with pytest.raises(Exception, match="append-only"):
            await ledger.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM events"))
        assert await collected(ledger) == [1]


# The chain


@settings(max_examples=25)
@given(strategies.histories)
def test_chain_can_be_computed_with_the_standard_library(history: list[LedgerEvent]) -> None:
    async def check() -> None:
        async with fresh_ledger() as ledger:
            entries = await ledger.append_many(history)
            last = entries[-1].digest if entries else "0" * 64
            assert (
                independent_verifier.check(str(ledger.database.path), OWNER)
                == last
                == (await ledger.head()).head_digest
            )

    asyncio.run(check())


def test_standalone_verifier_takes_at_most_twenty_lines() -> None:
    source = Path(independent_verifier.__file__).read_text()
    code = [line for line in source[source.index("import hashlib") :].splitlines() if line.strip()]
    assert len(code) <= 20
    assert "podledger" not in "".join(code)


async def test_standalone_verifier_finds_a_change() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p"), Errored(pod_name="p", message="no"), turned("p")])
        with connected(ledger.database.path) as attacker:
            attacker.execute("DROP TRIGGER events_no_update")
            attacker.execute("UPDATE events SET payload = replace(payload, 'no', 'on') WHERE seq = 2")
        with pytest.raises(ValueError, match="entry 2"):
            independent_verifier.check(str(ledger.database.path), OWNER)


def some_entry() -> Entry:
    values: list[Any] = [
        "root",
        4,
        1_000_000,
        "reported",
        "turn_ended",
        "p",
        "{}",
        100,
        0,
        0,
        *[None] * 8,
        "noted",
        1,
        "",
    ]
    return Entry._make(values)


@pytest.mark.parametrize("name", Entry._fields[:-1])
def test_digest_covers_every_field(name: str) -> None:
    fields: list[Any] = list(some_entry())
    at = Entry._fields.index(name)
    fields[at] = 7 if fields[at] is None else fields[at] + type(fields[at])(1)
    assert chain_digest("0" * 64, fields) != chain_digest("0" * 64, some_entry())


def test_digest_covers_the_previous_digest() -> None:
    assert chain_digest("0" * 64, some_entry()) != chain_digest("1" * 64, some_entry())


# Rejected lines


async def test_rejected_line_keeps_bytes_reason_and_sender() -> None:
    raw = bytes(range(256))
    async with fresh_ledger(clock=Clock(1, step_s=0)) as ledger:
        await ledger.commits.append([], [Rejection(raw, "not UTF-8", Sender(1, 2, 3)), Rejection(b"", "empty", None)])
        first, second = await ledger.rejected()
        assert (first.raw, first.reason, first.pid, first.uid, first.gid) == (raw, "not UTF-8", 1, 2, 3)
        assert (first.number, first.recorded_us, second.number, second.pid) == (1, 1_000_000, 2, None)
        assert first.as_json()["raw_hex"] == raw.hex()
        assert first.as_json()["sender"] == {"pid": 1, "uid": 2, "gid": 3}
        assert json.loads(json.dumps(second.as_json()))["sender"] is None


async def test_rejected_lines_take_no_seq() -> None:
    async with fresh_ledger() as ledger:
        await ledger.commits.append([draft(turned("p"), OWNER)], [Rejection(b"x", "no", None)])
        (entry,) = await ledger.commits.append([draft(turned("p"), OWNER)])
        assert entry.seq == 2
        assert [row.number for row in await ledger.rejected(after=0, limit=5)] == [1]
        assert (await ledger.verify()).ok


# Reading


async def test_entries_are_selected_by_pod_kind_and_outcome() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), turned("q"), stopped("p"), stopped("p"), turned("p")])
        assert await collected(ledger, pod="p", kind="turn_ended") == [2, 6]
        assert await collected(ledger, outcome="duplicate") == [5]
        assert await collected(ledger, pod="nobody") == []


async def test_entries_are_selected_by_inclusive_moments() -> None:
    async with fresh_ledger(clock=Clock(1_000)) as ledger:
        for _ in range(5):
            await ledger.append(turned("p"))
        start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=1_002)
        assert await collected(ledger, since=2, until=4) == [2, 3, 4]
        assert await collected(ledger, since=start, until=start + timedelta(seconds=1.5)) == [2, 3]
        assert await collected(ledger, since=start + timedelta(microseconds=1)) == [3, 4, 5]
        assert await collected(ledger, until=start - timedelta(days=1)) == []
        with pytest.raises(InvalidMomentError):
            await collected(ledger, until=6)


@pytest.mark.parametrize(("limit", "size"), [(None, 3), (0, 3), (2, 3), (3, 3), (4, 3), (7, 3), (99, 3), (5, 1)])
async def test_entries_are_read_page_by_page(limit: int | None, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PAGE", size)
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 7)
        expected = list(range(1, 8))[:limit]
        assert await collected(ledger, limit=limit) == expected


# Two processes

WRITER = """
import asyncio, sys
from podledger.ledger import Ledger
from podledger.core.events import PodSpawned
from podledger.core.events import ShutDown, TurnEnded

async def main(path, name, rounds):
    async with Ledger.open(path, "root") as ledger:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(rounds):
            await ledger.append(PodSpawned(pod_name="p", socket_path=f"/run/{name}"))
            await ledger.append_many([TurnEnded(pod_name="p"), TurnEnded(pod_name=name)])
            await ledger.append(ShutDown(pod_name="p"))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def writer(path: Path, name: str, rounds: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(rounds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_two_processes_append_to_one_ledger(tmp_path: Path) -> None:
    """The log has no gap and no seq twice, and each process applies the events of the other."""
    path = new_database(tmp_path / "l.db")
    processes = [writer(path, name, 40) for name in ("x", "y")]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    rows = rows_of(path, "events")["events"]
    assert [row[1] for row in rows] == list(range(1, 321))
    senders = [json.loads(row[6])["socket_path"] for row in rows if row[4] == "pod_spawned"]
    assert senders != sorted(senders), "the processes took too few turns to prove anything"
    async with Ledger.open(path) as ledger:
        assert (await ledger.verify()).problems == ()
