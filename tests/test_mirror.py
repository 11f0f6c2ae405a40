"""The mirror: the open pods in the records of the original runtime, in a file that is replaced after each change."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podledger.core.errors import StorageError
from podledger.ledger import Ledger
from podledger.mirror import write_mirror
from tests.given import OWNER, delegated, exited, reclaimed, spawned, stopped, turned, writes
from tests.support import fresh_ledger
from tests.waiting import wait_until


def mirrored(path: Path) -> Any:
    return json.loads(path.read_text())


def names(path: Path) -> list[str]:
    return [record["pod_name"] for record in mirrored(path)]


async def test_mirror_holds_the_original_records_by_name(tmp_path: Path) -> None:
    path = tmp_path / "spawned_pods.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        await ledger.append_many([spawned("p", "/run/p", writes("/srv"), "/run/root"), delegated("a", parent="p")])
    assert mirrored(path) == [
        {"pod_name": "a", "socket_path": "/run/s", "scope_delegated": [], "callback_address": "/run/p"},
        {
            "pod_name": "p",
            "socket_path": "/run/p",
            "scope_delegated": [{"target": "/srv", "permission": "write", "recursive": True}],
            "callback_address": "/run/root",
        },
    ]


@pytest.mark.parametrize("round_", range(10))
async def test_last_change_is_written_before_the_ledger_closes(round_: int, tmp_path: Path) -> None:
    """The ledger closes after between 0 and 4 turns of the event loop."""
    path = tmp_path / "m.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        await ledger.append(spawned("p"))
        for _ in range(round_ % 5):
            await asyncio.sleep(0)
        await ledger.append_many([stopped("p"), spawned("q")])
    assert names(path) == ["q"]


def shows(path: Path, expected: list[str]) -> bool:
    return path.exists() and names(path) == expected


async def test_mirror_follows_each_change(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        for event, expected in [
            (spawned("p"), ["p"]),
            (delegated("q"), ["p", "q"]),
            (reclaimed("p"), ["q"]),
            (turned("p"), ["p", "q"]),
            (exited("q"), ["p"]),
        ]:
            await ledger.append(event)
            await wait_until(partial(shows, path, expected))


async def test_mirror_is_right_after_a_burst(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        await asyncio.gather(*(ledger.append(spawned(f"p{number:03}")) for number in range(200)))
    assert names(path) == [f"p{number:03}" for number in range(200)]


async def test_reader_never_sees_a_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        appending = asyncio.gather(*(_in_turn(ledger, number) for number in range(3)))
        while not appending.done():
            if path.exists():
                assert isinstance(mirrored(path), list)
            await asyncio.sleep(0)
        await appending
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.json"], "a temporary file was left behind"


async def _in_turn(ledger: Ledger, number: int) -> None:
    for _ in range(20):
        await ledger.append(spawned(f"p{number}", scope=writes(*["/srv/" + "x" * 500] * 20)))
        await ledger.append(stopped(f"p{number}"))


async def test_events_without_a_tenure_change_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        await ledger.append_many([turned("p"), stopped("p")])
    assert not path.exists()


async def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p"))
        await ledger.configure(mirror=str(tmp_path / "m.json"))
        await ledger.configure(mirror="")
        await ledger.append(spawned("q"))
    assert list(tmp_path.iterdir()) == []


async def test_only_its_owner_may_read_the_mirror(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_mirror(tmp_path / "m.json", [], tmp_path / "l.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.json").stat().st_mode) == 0o600
    assert mirrored(tmp_path / "m.json") == []


def test_failed_write_raises_and_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        write_mirror(tmp_path / "none" / "m.json", [], tmp_path / "l.db")
    assert caught.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        write_mirror(tmp_path / "folder", [], tmp_path / "l.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "m.json").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        write_mirror(tmp_path / "m.json", [], tmp_path / "l.db")
    assert (tmp_path / "victim").read_text() == "mine"


async def test_failed_mirror_logs_a_warning_and_appending_continues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
        await ledger.configure(mirror=str(tmp_path / "none" / "m.json"))
        with caplog.at_level(logging.WARNING):
            assert (await ledger.append(spawned("p"))).seq == 1
            assert (await ledger.append(stopped("p"))).seq == 2
    assert [record.levelname for record in caplog.records if "m.json" in record.getMessage()] != []
