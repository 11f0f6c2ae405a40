"""The mirror: the registry as the seed system's `spawned_pods.json`, replaced whole after each change."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from podledger.core.errors import StorageError
from podledger.ledger import Ledger
from podledger.mirror import write_mirror
from tests.support import OWNER, delegated, exited, fresh_ledger, reclaimed, spawned, stopped, turned, writes


def mirrored(path: Path) -> Any:
    return json.loads(path.read_text())


def names(path: Path) -> list[str]:
    return [record["pod_name"] for record in mirrored(path)]


async def test_it_holds_the_seed_s_records_by_name(tmp_path: Path) -> None:
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
async def test_the_last_change_is_there_when_the_ledger_is_closed(round_: int, tmp_path: Path) -> None:
    """However soon after the append that is."""
    path = tmp_path / "m.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        await ledger.append(spawned("p"))
        for _ in range(round_ % 5):
            await asyncio.sleep(0)
        await ledger.append_many([stopped("p"), spawned("q")])
    assert names(path) == ["q"]


async def test_it_follows_each_change(tmp_path: Path) -> None:
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
            async with asyncio.timeout(10):
                while not path.exists() or names(path) != expected:
                    await asyncio.sleep(0.001)


async def test_a_burst_is_written_in_one_go_and_ends_right(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    async with fresh_ledger() as ledger:
        await ledger.configure(mirror=str(path))
        await asyncio.gather(*(ledger.append(spawned(f"p{number:03}")) for number in range(200)))
    assert names(path) == [f"p{number:03}" for number in range(200)]


async def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
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


async def test_what_changes_no_tenure_writes_nothing(tmp_path: Path) -> None:
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


async def test_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_mirror(tmp_path / "m.json", [], tmp_path / "l.db")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.json").stat().st_mode) == 0o600
    assert mirrored(tmp_path / "m.json") == []


def test_a_mirror_that_cannot_be_written_is_a_storage_error_and_leaves_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        write_mirror(tmp_path / "none" / "m.json", [], tmp_path / "l.db")
    assert caught.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError):
        write_mirror(tmp_path / "folder", [], tmp_path / "l.db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "m.json").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        write_mirror(tmp_path / "m.json", [], tmp_path / "l.db")
    assert (tmp_path / "victim").read_text() == "mine"


async def test_a_mirror_that_fails_is_a_warning_and_the_log_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
        await ledger.configure(mirror=str(tmp_path / "none" / "m.json"))
        with caplog.at_level(logging.WARNING):
            assert (await ledger.append(spawned("p"))).seq == 1
            assert (await ledger.append(stopped("p"))).seq == 2
    assert [record.levelname for record in caplog.records if "m.json" in record.getMessage()] != []
