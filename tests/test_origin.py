"""Reports of real processes: the receiver records how each sender is related to the process of its pod."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from podledger.archive.transfer import export_lines, import_lines, read_lines
from podledger.client.sender import send_pod_event
from podledger.core.entries import Sender
from podledger.core.events import PodSpawned, ScopeSubDelegated, TurnEnded
from podledger.host import origin
from podledger.host.origin import SenderOrigin
from podledger.host.processes import AncestryReader, start_of
from podledger.ledger import Ledger
from podledger.server.receiver import Receiver
from tests.given import stamped
from tests.support import connected, fresh_ledger
from tests.waiting import wait_until

POD = """
import subprocess, sys
sys.stdin.readline()
report = "import sys; from podledger.client.delivery import deliver; deliver(sys.argv[1], sys.argv[2].encode())"
exec(report)
for depth in (1, 2):
    helper = [sys.executable, "-c", report, *sys.argv[1:]]
    wrapper = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"]
    subprocess.run((wrapper if depth == 2 else []) + helper, check=True)
"""
"""A pod that reports when it reads a line: itself, then a child of it, then a grandchild."""


def origin_of(sender: Sender) -> SenderOrigin:
    return SenderOrigin(sender, AncestryReader())


async def spawn(socket: Path) -> asyncio.subprocess.Process:
    turn = '{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"coder"}}\n'
    return await asyncio.create_subprocess_exec(sys.executable, "-c", POD, socket, turn, stdin=subprocess.PIPE)


async def relations(ledger: Ledger, count: int, kind: str = "turn_ended") -> list[str | None]:
    async def arrived() -> bool:
        return len([entry async for entry in ledger.entries(kind=kind)]) == count

    await wait_until(arrived)
    return [entry.relation async for entry in ledger.entries(kind=kind)]


async def test_reports_of_a_pod_and_its_descendants_are_its_own(short: Path) -> None:
    async with fresh_ledger() as ledger, Receiver(ledger, short / "s"):
        pod = await spawn(short / "s")
        await ledger.append(PodSpawned(pod_name="coder", socket_path="", pid=pod.pid))
        await pod.communicate(b"\n")
        assert await relations(ledger, 3) == ["pod", "descendant", "descendant"]
        assert anomalies(ledger) == []
        assert (await ledger.verify()).ok
        assert await ledger.rebuild() == 0


async def test_report_of_an_unrelated_process_is_an_anomaly(short: Path) -> None:
    async with fresh_ledger() as ledger, Receiver(ledger, short / "s"):
        pod = await spawn(short / "s")
        await ledger.append(PodSpawned(pod_name="coder", socket_path="", pid=pod.pid))
        await send_pod_event(short / "s", TurnEnded(pod_name="coder"))
        await send_pod_event(short / "s", TurnEnded(pod_name="stranger"))
        lent = ScopeSubDelegated(parent_pod="coder", sub_pod="tester", sub_socket="/run/t", scope=())
        await send_pod_event(short / "s", lent)
        assert await relations(ledger, 2) == ["other", None]
        assert await relations(ledger, 1, "scope_sub_delegated") == ["other"]
        assert anomalies(ledger) == [(2, "coder"), (4, "tester")]
        pod.kill()
        await pod.wait()


async def test_spawn_by_another_process_counts_at_once(short: Path) -> None:
    async with fresh_ledger() as ledger, Receiver(ledger, short / "s"):
        await send_pod_event(short / "s", TurnEnded(pod_name="coder"))
        assert await relations(ledger, 1) == [None]
        async with Ledger.open(ledger.database.path) as other:
            await other.append(PodSpawned(pod_name="coder", socket_path="", pid=os.getpid()))
        await send_pod_event(short / "s", TurnEnded(pod_name="coder"))
        assert await relations(ledger, 2) == [None, "pod"]


async def test_report_after_the_pod_has_exited_is_not_judged(short: Path) -> None:
    """A helper that outlives its pod has another parent by then."""
    async with fresh_ledger() as ledger, Receiver(ledger, short / "s"):
        pod = await spawn(short / "s")
        await ledger.append(PodSpawned(pod_name="coder", socket_path="", pid=pod.pid))
        pod.kill()
        await pod.wait()
        await send_pod_event(short / "s", TurnEnded(pod_name="coder"))
        assert await relations(ledger, 1) == [None]


async def test_late_report_of_an_earlier_incarnation_is_not_judged(short: Path) -> None:
    async with fresh_ledger() as ledger, Receiver(ledger, short / "s"):
        pod = await spawn(short / "s")
        for number, pid in ((1, os.getpid()), (2, pod.pid)):
            spawned = PodSpawned(pod_name="coder", socket_path="", pid=pid)
            await ledger.append(stamped(spawned, number))
        await send_pod_event(short / "s", stamped(TurnEnded(pod_name="coder"), 1))
        await send_pod_event(short / "s", stamped(TurnEnded(pod_name="coder"), 2))
        assert await relations(ledger, 2) == [None, "other"]
        pod.kill()
        await pod.wait()


async def test_named_incarnation_hides_no_stranger_from_an_unnamed_pod(short: Path) -> None:
    async with fresh_ledger() as ledger, Receiver(ledger, short / "s"):
        pod = await spawn(short / "s")
        await ledger.append(PodSpawned(pod_name="coder", socket_path="", pid=pod.pid))
        await send_pod_event(short / "s", stamped(TurnEnded(pod_name="coder"), 1))
        assert await relations(ledger, 1) == ["other"]
        pod.kill()
        await pod.wait()


def test_descendant_of_another_user_is_other() -> None:
    us = (os.getpid(), start_of(os.getpid()) or "")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as helper:
        assert origin_of(Sender(helper.pid, os.geteuid(), 0)).relation_to(*us) == "descendant"
        assert origin_of(Sender(helper.pid, os.geteuid() + 1, 0)).relation_to(*us) == "other"
        helper.kill()


def test_sender_that_is_gone_is_judged_by_its_user_alone() -> None:
    us = (os.getpid(), start_of(os.getpid()) or "")
    gone = 1 << 22
    assert origin_of(Sender(gone, os.geteuid(), 0)).relation_to(*us) is None
    assert origin_of(Sender(gone, os.geteuid() + 1, 0)).relation_to(*us) == "other"


def test_process_with_the_pid_of_the_pod_is_not_the_pod() -> None:
    pid, start = os.getpid(), start_of(os.getpid()) or ""
    assert origin_of(Sender(pid, os.geteuid(), 0)).relation_to(pid, start + "0") is None


def test_pods_of_a_sender_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[int, str]] = []

    def look(pid: int, start: str) -> str:
        looked.append((pid, start))
        return "gone"

    monkeypatch.setattr(origin, "liveness", look)
    sender = origin_of(Sender(os.getpid(), os.geteuid(), 0))
    for _ in range(3):
        for number in range(10):
            assert sender.relation_to(number, "") is None
    assert len(looked) == 10


async def test_relation_survives_export_and_import(short: Path) -> None:
    async with fresh_ledger() as ledger, Receiver(ledger, short / "s"):
        await ledger.append(PodSpawned(pod_name="coder", socket_path="", pid=os.getpid()))
        await send_pod_event(short / "s", TurnEnded(pod_name="coder"))
        assert await relations(ledger, 1) == ["pod"]
        lines = [line async for line in export_lines(ledger)]
        async with Ledger.open(short / "copy.db", ledger.name) as copy:
            async for _ in import_lines(copy, read_lines(lines, copy.name)):
                pass
            assert await relations(copy, 1) == ["pod"]
            assert (await copy.head()).head_digest == (await ledger.head()).head_digest


def anomalies(ledger: Ledger) -> list[tuple[int, str]]:
    with connected(ledger.database.place) as reader:
        return reader.execute(
            "SELECT seq, pod_name FROM anomalies WHERE what = 'other_process' ORDER BY seq"
        ).fetchall()
