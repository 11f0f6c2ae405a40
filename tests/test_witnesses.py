"""Witnesses: `verify --tree` and `collect` compare a child's log with what its parents' logs received."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from podledger import Ledger
from podledger.archive.backup import backup
from podledger.archive.collect import collect
from podledger.core.events import LedgerEvent, parse_event
from podledger.core.problem import Problem
from podledger.integrity import tree
from podledger.integrity.tree import TreeResult, verify_tree
from podledger.integrity.witnesses import Copy
from podledger.store.database import locate
from tests.clocks import Clock
from tests.given import make_ledger, spawned, turned
from tests.runner import podledger, podledger_json
from tests.support import connected


async def written(path: Path, name: str, events: Sequence[LedgerEvent]) -> list[LedgerEvent]:
    """Append events to a ledger that has a parent, and return the reports that it owes the parent from these on."""
    async with Ledger.open(path, name, clock=Clock()) as ledger:
        await ledger.configure(parent_socket="/run/parent.sock")
        owed = await ledger.count_outbox_items(status="pending")
        await ledger.append_many(events)
        return [parse_event(item.payload) for item in await ledger.outbox_items(after=owed)]


async def family(folder: Path) -> None:
    """Make three ledgers: planner relays its seq 1, 3 and 4 to root, and coder its seq 2 to planner, which is seq 4."""
    coder = await written(folder / "coder", "coder", [turned("x"), spawned("tester")])
    first = [spawned("coder"), turned("coder"), spawned("scout"), *coder]
    await written(folder / "root", "root", await written(folder / "planner", "planner", first))
    await written(folder / "planner", "planner", [turned("scout")])


def tree_of(folder: Path, *names: str) -> TreeResult:
    return verify_tree([folder / name for name in names])


async def rewritten(folder: Path, at: int) -> None:
    """Put another log of planner, whose chain is whole, in place of it: it differs from seq `at` on."""
    async with Ledger.open(folder / "planner") as ledger:
        events = [entry.event async for entry in ledger.entries()]
    (folder / "planner").unlink()
    events[at - 1] = turned("forged")
    async with Ledger.open(folder / "planner", "planner", clock=Clock()) as ledger:
        await ledger.append_many(events[:4])
        await ledger.append_many(events[4:])
        assert (await ledger.verify()).ok


async def test_untouched_tree_fits(tmp_path: Path) -> None:
    await family(tmp_path)

    result = tree_of(tmp_path, "root", "planner", "coder")

    assert (result.ok, result.compared, result.absent, result.ambiguous) == (True, 4, (), ())
    assert [verified.ledger for _, verified in result.ledgers] == ["root", "planner", "coder"]


async def test_rewritten_log_is_named_with_first_seq(tmp_path: Path) -> None:
    await family(tmp_path)
    await rewritten(tmp_path, 2)

    result = tree_of(tmp_path, "root", "planner")

    assert all(verified.ok for _, verified in result.ledgers)
    detail = "planner's log differs at seq 3 from what root witnessed at seq 2"
    assert result.problems == (Problem("witness", 3, detail),)


async def test_cut_log_is_shorter_than_witnessed(tmp_path: Path) -> None:
    await written(tmp_path / "planner", "planner", [spawned("coder")])
    backup(tmp_path / "planner", tmp_path / "cut")
    owed = await written(tmp_path / "planner", "planner", [turned("coder"), spawned("scout"), spawned("other")])
    await written(tmp_path / "root", "root", owed)

    problem = Problem("witness", 3, "planner's log is shorter: root witnessed its seq 3 at seq 1")
    assert tree_of(tmp_path, "root", "planner").ok
    assert tree_of(tmp_path, "root", "cut").problems == (problem,)


async def test_other_ledger_of_the_name_does_not_fit(tmp_path: Path) -> None:
    await family(tmp_path)
    await make_ledger(tmp_path / "stranger", "planner")

    alone = tree_of(tmp_path, "root", "stranger")
    both = tree_of(tmp_path, "root", "stranger", "planner")

    assert [str(each.detail) for each in alone.problems] == [
        "planner's log differs at seq 1 from what root witnessed at seq 1"
    ]
    assert (both.ok, both.ambiguous) == (True, ("planner",))


async def test_absent_children_are_stated_and_no_failure(tmp_path: Path) -> None:
    await family(tmp_path)

    printed = podledger("verify", "--tree", tmp_path / "root", tmp_path / "coder").out

    assert "not compared: no database holds the ledger planner, which relays name" in printed
    assert podledger_json("verify", "--tree", tmp_path / "root")["absent"] == ["planner"]


async def test_command_prints_each_ledger_and_exits_with_1(tmp_path: Path) -> None:
    await family(tmp_path)
    words = ("--db", tmp_path / "root", "--tree", tmp_path / "planner", tmp_path / "coder")
    whole = podledger("verify", *words).out
    await rewritten(tmp_path, 2)

    found = podledger("verify", "--tree", tmp_path / "root", tmp_path / "planner", status=1).out

    assert "4 relays compared: each fits" in whole
    assert whole.startswith("root: verified: 3 events")
    assert "planner's log differs at seq 3" in found


async def test_entry_relayed_meanwhile_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The children are read after the parents: planner writes, and root hears of it, after planner was first opened."""
    await family(tmp_path)
    opened, copies_in = iter(("planner", "root")), tree.copies_in

    async def go_on() -> None:
        await written(tmp_path / "root", "root", await written(tmp_path / "planner", "planner", [spawned("late")]))

    def copies_while_both_go_on(path: Path, stack: ExitStack) -> list[Copy]:
        if next(opened, None) == "root":
            asyncio.run(go_on())
        return copies_in(path, stack)

    monkeypatch.setattr(tree, "copies_in", copies_while_both_go_on)

    result = await asyncio.to_thread(tree_of, tmp_path, "planner", "root")

    assert (result.problems, result.compared) == ((), 4)


async def test_damaged_database_does_not_hide_the_others(tmp_path: Path) -> None:
    await family(tmp_path)
    (tmp_path / "coder").write_bytes(b"no database" * 1000)

    result = tree_of(tmp_path, "coder", "root", "planner")

    assert [verified.ok for _, verified in result.ledgers] == [False, True, True]
    assert (result.compared, result.problems, result.absent) == (3, (), ("coder",))


async def test_tree_refuses_options_of_one_ledger(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "root")
    told = podledger("verify", "--ledger", "root", "--tree", tmp_path / "root", status=2).err
    assert "--tree goes with none of --ledger" in told


# Collect


async def test_source_that_does_not_fit_is_refused_alone(tmp_path: Path) -> None:
    await family(tmp_path)
    await collect([tmp_path / "root"], tmp_path / "all")
    await rewritten(tmp_path, 3)

    refused = podledger("collect", tmp_path / "planner", tmp_path / "coder", "--into", tmp_path / "all", status=1)

    assert "planner's log differs at seq 3 from what root witnessed at seq 2" in refused.err
    with connected(locate(tmp_path / "all")) as db:
        assert db.execute("SELECT name FROM ledgers ORDER BY 1").fetchall() == [("coder",), ("root",)]


async def test_sources_of_one_call_witness_each_other(tmp_path: Path) -> None:
    await family(tmp_path)
    fits = await collect([tmp_path / name for name in ("coder", "planner", "root")], tmp_path / "good")
    await rewritten(tmp_path, 3)

    collected = await collect([tmp_path / name for name in ("coder", "planner", "root")], tmp_path / "all")

    assert [one.problem for one in fits] == ["", "", ""]
    assert [(one.ledger, bool(one.problem), one.events) for one in collected] == [
        ("coder", False, 2),
        ("planner", True, 0),
        ("root", False, 3),
    ]
