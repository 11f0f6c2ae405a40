"""Facts of the owner: relative paths become absolute, and the process of a spawn gets its start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podledger.archive.transfer import import_lines, read_lines
from podledger.core.errors import InvalidEventError
from podledger.core.events import PodSpawned
from podledger.core.fields import ScopeRule
from podledger.host.facts import stated
from podledger.host.processes import start_of
from podledger.ledger import Ledger
from tests.given import delegated, spawned, writes
from tests.runner import podledger, podledger_json
from tests.support import fresh_ledger


def test_relative_paths_of_a_spawn_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    event = stated(spawned("p", "run/../p.sock", writes("app", "/srv/../etc", ""), callback="./root.sock"))
    assert isinstance(event, PodSpawned)
    assert (event.socket_path, event.callback_address) == (f"{tmp_path}/p.sock", f"{tmp_path}/root.sock")
    assert [rule.target for rule in event.scope] == [f"{tmp_path}/app", "/srv/../etc", str(tmp_path)]


def test_absolute_paths_and_reports_stay_as_they_are() -> None:
    for event in (
        spawned("p", "/run/../p", writes("/srv/")),
        spawned("p", ""),
        delegated("p", "p.sock", writes("app")),
    ):
        assert stated(event) is event


def test_symbolic_links_are_not_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("/srv")
    monkeypatch.chdir(tmp_path)
    event = stated(spawned("p", "link/p.sock"))
    assert isinstance(event, PodSpawned)
    assert event.socket_path == f"{tmp_path}/link/p.sock"


def test_relative_path_in_a_removed_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert stated(spawned("p", "/run/p"))
    with pytest.raises(InvalidEventError, match="relative"):
        stated(spawned("p", "p.sock"))


async def test_start_of_the_process_is_recorded() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(PodSpawned(pod_name="ours", socket_path="", pid=os.getpid()))
        await ledger.append(PodSpawned(pod_name="given", socket_path="", pid=os.getpid(), start="then"))
        await ledger.append_many([PodSpawned(pod_name="none", socket_path="", pid=1 << 22)])
        pods = {pod.pod_name: (pod.pid, pod.start) for pod in await ledger.pods()}
        assert pods == {
            "ours": (os.getpid(), start_of(os.getpid())),
            "given": (os.getpid(), "then"),
            "none": (1 << 22, None),
        }
        assert await ledger.rebuild() == 0
        assert (await ledger.verify()).ok


async def test_import_completes_the_paths_of_bare_spawns_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [
        b'{"kind":"pod_spawned","pod_name":"a","socket_path":"a.sock","scope":[],"pid":1}',
        b'{"kind":"pod_spawned","pod_name":"b","socket_path":"/b.sock","extra":1}',
        b'{"method":"pod_event","params":{"kind":"scope_sub_delegated","parent_pod":"a","sub_pod":"c","sub_socket":"c","scope":[]}}',
    ]
    async with fresh_ledger() as ledger:
        async for _ in import_lines(ledger, read_lines(lines, ledger.name)):
            pass
        assert [pod.socket_path for pod in await ledger.pods()] == [f"{tmp_path}/a.sock", "/b.sock", "c"]
        assert [pod.start for pod in await ledger.pods()] == [None] * 3
        assert [entry.payload async for entry in ledger.entries(pod="b")] == [lines[1].decode()]


def test_commands_resolve_relative_paths_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    podledger("init", "root", folder=tmp_path)
    podledger("spawned", "coder", "--socket", "c.sock", "--scope", "write:app", folder=tmp_path)
    podledger("spawned", "logger", folder=tmp_path)
    database = tmp_path / "podledger.db"
    pods = podledger_json("--db", database, "pods", folder=tmp_path / "sub")
    assert [pod["socket_path"] for pod in pods] == [f"{tmp_path}/c.sock", ""]
    for path, folder in ((f"{tmp_path}/app/x", "sub"), ("app/x", "."), ("../app/x", "sub")):
        found = podledger_json("--db", database, "holders", path, folder=tmp_path / folder)
        assert (found["path"], found["holders"][0]["pod_name"]) == (f"{tmp_path}/app/x", "coder")
    assert (
        podledger_json("--db", database, "holders", "app/x", folder=tmp_path / "sub")["holders"][0]["pod_name"]
        == "root"
    )


async def test_library_resolves_a_relative_path_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Ledger.open("l.db", "root") as ledger:
        await ledger.append(
            PodSpawned(pod_name="p", socket_path="", scope=(ScopeRule(target="app", permission="write"),))
        )
        for path in ("app/x", f"{tmp_path}/app/x"):
            assert [holder.pod_name for holder in await ledger.holders(path)] == ["p"]
