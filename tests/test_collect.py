"""Collections: the ledgers of many databases in one, each as it was, unless two of one name diverge."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podledger import Ledger, PodSpawned, TurnEnded
from podledger.archive.backup import backup
from podledger.archive.collect import Collected, collect
from podledger.archive.divergence import first_divergence
from podledger.core.errors import ChainError, LedgerNotFoundError
from podledger.store.log import Rejection
from tests.given import history, make_ledger
from tests.runner import podledger, podledger_json

TABLES = ("events", "rejected", "tenures", "grants", "pods", "streams")


def rows(path: Path, ledger: str) -> list[list[tuple[object, ...]]]:
    """Return every row of a ledger's record and projections."""
    with sqlite3.connect(path) as db:
        key = "WHERE ledger = ? ORDER BY 1, 2, 3, 4"
        found = [db.execute(f"SELECT * FROM {table} {key}", (ledger,)).fetchall() for table in TABLES]
    db.close()
    return found


async def test_collected_ledgers_keep_name_and_rows(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "one", "root")
    await make_ledger(tmp_path / "two", "planner", history()[:4])
    await make_ledger(tmp_path / "two", "scout", [])

    collected = await collect([tmp_path / "one", tmp_path / "two"], tmp_path / "all")

    assert collected == [
        Collected("root", str(tmp_path / "one"), 8, 1, 8),
        Collected("planner", str(tmp_path / "two"), 4, 1, 4),
        Collected("scout", str(tmp_path / "two"), 0, 1, 0),
    ]
    for source, name in (("one", "root"), ("two", "planner"), ("two", "scout")):
        assert rows(tmp_path / "all", name) == rows(tmp_path / source, name)
        async with Ledger.open(tmp_path / "all", name) as ledger:
            assert (await ledger.verify()).ok


async def test_second_collection_continues_the_first(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "one", events=history()[:3])
    await collect([tmp_path / "one"], tmp_path / "all")
    async with Ledger.open(tmp_path / "one") as ledger:
        await ledger.append_many(history()[3:])
        await ledger.commits.append([], [Rejection(b"again", "no", None)])

    assert [one[2:5] for one in await collect([tmp_path / "one"], tmp_path / "all")] == [(5, 1, 8)]
    assert [one[2:5] for one in await collect([tmp_path / "one"], tmp_path / "all")] == [(0, 0, 8)]
    assert rows(tmp_path / "all", "root") == rows(tmp_path / "one", "root")


async def test_longer_of_two_copies_is_kept_in_either_order(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "long", events=history()[:3])
    backup(tmp_path / "long", tmp_path / "short")
    async with Ledger.open(tmp_path / "long") as ledger:
        await ledger.append_many(history()[3:])

    for order in (["short", "long"], ["long", "short"]):
        await collect([tmp_path / name for name in order], tmp_path / "-".join(order))

        assert rows(tmp_path / "-".join(order), "root") == rows(tmp_path / "long", "root")


async def test_shorter_source_is_named(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "long", events=history()[:3])
    backup(tmp_path / "long", tmp_path / "short")
    async with Ledger.open(tmp_path / "long") as ledger:
        await ledger.append_many(history()[3:])
    assert [one.problem for one in await collect([tmp_path / "long"], tmp_path / "all")] == [""]

    told = podledger("collect", tmp_path / "short", "--into", tmp_path / "all", status=1).err

    assert "8 entries here, 3 in the source" in told
    assert rows(tmp_path / "all", "root") == rows(tmp_path / "long", "root")


async def test_divergent_ledgers_are_refused_with_first_difference(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "one")
    await make_ledger(tmp_path / "other", events=[*history()[:5], TurnEnded(pod_name="planner"), *history()[5:]])

    with pytest.raises(ChainError, match=r"diverge at seq 6$"):
        await collect([tmp_path / "one", tmp_path / "other"], tmp_path / "all")

    await collect([tmp_path / "one"], tmp_path / "all")
    refused = podledger("collect", tmp_path / "other", "--into", tmp_path / "all", status=1).err

    assert "hold two ledgers 'root' that diverge at seq 6" in refused
    assert rows(tmp_path / "all", "root") == rows(tmp_path / "one", "root")


async def test_divergent_rejected_lines_are_refused(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "one", events=[])
    async with Ledger.open(tmp_path / "other", "root") as ledger:
        await ledger.commits.append([], [Rejection(b"else", "no", None)])

    with pytest.raises(ChainError, match=r"diverge at rejected line 1$"):
        await collect([tmp_path / "one", tmp_path / "other"], tmp_path / "all")


async def test_ledger_with_broken_chain_is_refused(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "one")
    with sqlite3.connect(tmp_path / "one") as db:
        db.execute("DROP TRIGGER events_no_update")
        db.execute("UPDATE events SET outcome = 'late' WHERE seq = 4")
    db.close()

    with pytest.raises(ChainError, match="seq 4 of the ledger 'root' was refused"):
        await collect([tmp_path / "one"], tmp_path / "all")


async def test_collection_sends_nothing(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "one", "root") as ledger:
        await ledger.configure(parent_socket="/run/parent", mirror=str(tmp_path / "mirror.json"))
        await ledger.append(PodSpawned(pod_name="a", socket_path="/run/a"))
        await ledger.acknowledge(1)

    await collect([tmp_path / "one"], tmp_path / "all")

    async with Ledger.open(tmp_path / "all") as ledger:
        head = await ledger.head()
        assert (head.parent_socket, head.mirror, head.outbox_count, head.consumer_count) == (None, None, 0, 0)
        assert await ledger.outbox_items() == []


async def test_command_prints_what_it_collected(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "one")

    collected = podledger_json("collect", tmp_path / "one", "--into", tmp_path / "all")
    text = podledger("collect", tmp_path / "one", "--into", tmp_path / "all").out
    missing = podledger("collect", tmp_path / "nothing", "--into", tmp_path / "all", status=1).err

    assert collected == [{"ledger": "root", "source": str(tmp_path / "one"), "events": 8, "rejected": 1, "head_seq": 8}]
    assert text.splitlines()[0].split() == "ledger from new events new rejected lines events now".split()
    assert "there is no database at" in missing


async def test_missing_source_creates_no_target(tmp_path: Path) -> None:
    with pytest.raises(LedgerNotFoundError):
        await collect([tmp_path / "nothing"], tmp_path / "all")

    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 40), st.integers(1, 50))
def test_first_divergence_is_found_at_any_place(length: int, at: int) -> None:
    assert first_divergence(length, lambda seq: seq < at) == (at if at <= length else 0)
