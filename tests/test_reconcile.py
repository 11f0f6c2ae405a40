"""The reconciler over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from podledger.core.errors import StorageError
from podledger.core.events import PodReclaimed, PodSpawned, PodUnreachable
from podledger.host import processes
from podledger.host.processes import start_of
from podledger.ledger import Ledger
from podledger.queries.streaks import failure_streaks
from podledger.services.reconciler import ReconcilePolicy, Reconciler, probe
from tests.given import OWNER, delegated, spawned, stopped, turned
from tests.runner import podledger, podledger_json
from tests.sockets import dead_at, silent_at
from tests.support import Bench, connected, fresh_ledger
from tests.waiting import wait_until

AT_ONCE = ReconcilePolicy(attempts=1, grace_s=0)
THRICE = ReconcilePolicy(attempts=3, grace_s=0)


async def names(ledger: Ledger) -> list[str]:
    return [pod.pod_name for pod in await ledger.pods()]


async def kinds(ledger: Ledger, pod: str = "p") -> list[str]:
    return [entry.kind async for entry in ledger.entries(pod=pod)]


async def attempts(ledger: Ledger) -> list[int]:
    events = [entry.event async for entry in ledger.entries(kind="pod_unreachable")]
    return [event.attempt for event in events if isinstance(event, PodUnreachable)]


async def verdicts(reconciler: Reconciler, *, dry_run: bool = False) -> list[str]:
    return [result.verdict for result in await reconciler.round(dry_run=dry_run)]


# The probe


async def test_listening_socket_is_alive(short: Path) -> None:
    with silent_at(short / "p"):
        assert await probe(str(short / "p")) is None


async def test_socket_with_a_full_queue_is_alive(short: Path) -> None:
    with silent_at(short / "p", backlog=0), ExitStack() as clients:
        for _ in range(8):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(short / "p"))
        assert await probe(str(short / "p")) is None


async def test_socket_without_a_listener_is_unreachable(short: Path) -> None:
    (short / "file").touch()
    for path in (short / "none", dead_at(short / "dead"), short / "file", short):
        assert await probe(str(path))
    assert await probe("\0no such socket")
    assert await probe("/x\0y")


async def test_socket_with_a_long_path_is_alive(short: Path) -> None:
    """The sender reaches paths that are too long for a socket address, so the probe must too."""
    deep = short / ("d" * 100)
    deep.mkdir()
    descriptor = os.open(deep, os.O_PATH)
    with silent_at(Path(f"/proc/self/fd/{descriptor}/p")):
        assert len(str(deep / "p")) > 107
        assert await probe(str(deep / "p")) is None
    os.close(descriptor)


# Rounds


async def test_pod_that_answers_stays_registered(short: Path) -> None:
    with silent_at(short / "p"):
        async with fresh_ledger() as ledger:
            await ledger.append(spawned("p", str(short / "p")))
            assert await verdicts(Reconciler(ledger, AT_ONCE)) == ["alive"]
            assert await kinds(ledger) == ["pod_spawned"]


async def test_one_failed_probe_only_suspects_a_pod(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        (result,) = await Reconciler(ledger).round()
        assert (result.verdict, result.attempt, result.pod_name) == ("suspected", 1, "p")
        assert result.reason
        assert await kinds(ledger) == ["pod_spawned", "pod_unreachable"]
        assert await names(ledger) == ["p"]


async def test_pod_is_reclaimed_after_the_configured_attempts(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        reconciler = Reconciler(ledger, THRICE)
        assert [await verdicts(reconciler) for _ in range(4)] == [["suspected"], ["suspected"], ["reclaimed"], []]
        assert await attempts(ledger) == [1, 2, 3]
        assert await names(ledger) == []
        (last,) = [entry async for entry in ledger.entries(kind="pod_reclaimed")]
        assert (last.evidence, last.outcome) == ("inferred", "applied")
        assert isinstance(last.event, PodReclaimed)
        assert "3 times" in last.event.reason


async def test_pod_is_not_reclaimed_within_the_grace_time(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        reconciler = Reconciler(ledger, ReconcilePolicy(attempts=2, grace_s=3_600))
        assert [await verdicts(reconciler) for _ in range(5)] == [["suspected"]] * 5
        assert await attempts(ledger) == [1, 2, 3, 4, 5]


async def test_grace_time_starts_at_the_first_failure(short: Path) -> None:
    """The ledger's clock is a minute behind, so the first failure is recorded a minute ago."""
    behind_s = 60
    async with fresh_ledger(clock=lambda: time.time_ns() - behind_s * 1_000_000_000) as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        reconciler = Reconciler(ledger, ReconcilePolicy(attempts=2, grace_s=30))
        assert [await verdicts(reconciler) for _ in range(2)] == [["suspected"], ["reclaimed"]]


async def test_grace_time_does_not_replace_the_attempts(short: Path) -> None:
    async with fresh_ledger(clock=lambda: 1_000) as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        reconciler = Reconciler(ledger, ReconcilePolicy(attempts=3, grace_s=30))
        assert [await verdicts(reconciler) for _ in range(3)] == [["suspected"], ["suspected"], ["reclaimed"]]


async def test_dry_run_records_nothing(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        assert await verdicts(Reconciler(ledger, AT_ONCE), dry_run=True) == ["reclaimed"]
        assert await kinds(ledger) == ["pod_spawned"]
        assert await names(ledger) == ["p"]


async def test_answer_ends_the_failure_streak(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        reconciler = Reconciler(ledger, THRICE)
        await reconciler.round()
        await reconciler.round()
        with silent_at(short / "p"):
            assert await verdicts(reconciler) == ["alive"]
        assert [await verdicts(reconciler) for _ in range(3)] == [["suspected"], ["suspected"], ["reclaimed"]]
        assert await attempts(ledger) == [1, 2, 1, 2, 3]


async def test_report_ends_the_failure_streak(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        reconciler = Reconciler(ledger, THRICE)
        for _ in range(2):
            await reconciler.round()
        await ledger.append(turned("p"))
        assert await verdicts(reconciler) == ["suspected"]
        assert await attempts(ledger) == [1, 2, 1]


async def test_separate_reconcilers_count_from_the_log(short: Path) -> None:
    """`podledger reconcile` in a cron job relies on this."""
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        assert [await verdicts(Reconciler(ledger, THRICE)) for _ in range(3)] == [
            *(["suspected"], ["suspected"], ["reclaimed"])
        ]


async def test_new_tenure_starts_a_new_streak(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        for _ in range(2):
            await Reconciler(ledger, THRICE).round()
        await ledger.append_many([stopped("p"), spawned("p", str(short / "p"))])
        assert await verdicts(Reconciler(ledger, THRICE)) == ["suspected"]
        assert await attempts(ledger) == [1, 2, 1]


async def test_report_revives_a_reclaimed_pod(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        await Reconciler(ledger, AT_ONCE).round()
        assert await names(ledger) == []
        assert (await ledger.append(turned("p"))).outcome == "revived"
        assert await names(ledger) == ["p"]
        assert await verdicts(Reconciler(ledger, THRICE)) == ["suspected"]
        assert (await ledger.verify()).ok


async def test_pod_without_a_socket_is_not_probed() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", ""))
        assert await Reconciler(ledger, AT_ONCE).round() == []


async def test_many_pods_are_probed_independently(short: Path) -> None:
    with ExitStack() as living:
        async with fresh_ledger() as ledger:
            for number in range(40):
                path = short / f"{number:02}"
                if number % 2:
                    living.enter_context(silent_at(path))
                await ledger.append(spawned(f"p{number:02}", str(path)))
            found = await Reconciler(ledger, AT_ONCE).round()
            assert [result.verdict for result in found] == ["reclaimed", "alive"] * 20
            assert len(await names(ledger)) == 20


async def test_run_repeats_rounds_until_cancelled(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        running = asyncio.create_task(Reconciler(ledger, THRICE).run(0.01))

        async def all_reclaimed() -> bool:
            return not await names(ledger)

        await wait_until(all_reclaimed)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_failed_commit_raises_an_error(short: Path) -> None:
    async with fresh_ledger(busy_timeout_s=0.05) as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        with connected(ledger.database.path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError):
                await Reconciler(ledger, AT_ONCE).round()
            other.execute("ROLLBACK")


async def test_result_as_json(short: Path) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p", str(short / "p")))
        (result,) = await Reconciler(ledger).round()
        assert result.as_json() | {"reason": ""} == {
            "pod_name": "p",
            "socket_path": str(short / "p"),
            "verdict": "suspected",
            "attempt": 1,
            "reason": "",
        }


# Pods without a socket


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


async def test_pod_without_a_socket_lives_as_long_as_its_process() -> None:
    async with fresh_ledger() as ledger:
        with sleeper() as process:
            await ledger.append(PodSpawned(pod_name="p", socket_path="", pid=process.pid))
            assert await verdicts(Reconciler(ledger, AT_ONCE)) == ["alive"]
            process.kill()
        reconciler = Reconciler(ledger, THRICE)
        assert [await verdicts(reconciler) for _ in range(4)] == [["suspected"], ["suspected"], ["reclaimed"], []]
        (last,) = [entry async for entry in ledger.entries(kind="pod_reclaimed")]
        assert isinstance(last.event, PodReclaimed)
        assert f"process {process.pid} has exited" in last.event.reason


async def test_pod_whose_pid_was_used_again_is_gone() -> None:
    """Our own process stands for the one that got the pid later: its start is another."""
    async with fresh_ledger() as ledger:
        start = f"{start_of(os.getpid())}0"
        await ledger.append(PodSpawned(pod_name="p", socket_path="", pid=os.getpid(), start=start))
        assert await verdicts(Reconciler(ledger, AT_ONCE)) == ["reclaimed"]


async def test_process_that_is_hidden_is_never_reclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(PodSpawned(pod_name="p", socket_path="", pid=os.getpid()))
        monkeypatch.setattr(processes, "_read_stat", lambda _pid: None)
        (result,) = await Reconciler(ledger, AT_ONCE).round()
        assert (result.verdict, result.attempt) == ("unknown", 0)
        assert "hidden" in result.reason
        assert await kinds(ledger) == ["pod_spawned"]


async def test_process_without_a_start_is_never_reclaimed() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(PodSpawned(pod_name="p", socket_path="", pid=1 << 22))
        assert await verdicts(Reconciler(ledger, AT_ONCE)) == ["unknown"]


async def test_revived_pod_keeps_its_process() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(PodSpawned(pod_name="p", socket_path="", pid=os.getpid()))
        await ledger.append(PodReclaimed(pod_name="p", reason="by mistake"))
        assert (await ledger.append(turned("p"))).outcome == "revived"
        assert await verdicts(Reconciler(ledger, AT_ONCE)) == ["alive"]


async def test_relative_socket_from_the_wire_is_not_judged() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(delegated("p", "p.sock"))
        (result,) = await Reconciler(ledger, AT_ONCE).round()
        assert (result.verdict, result.socket_path) == ("unknown", "p.sock")
        assert "relative" in result.reason
        assert await names(ledger) == ["p"]


def test_reconcile_in_another_folder_finds_the_socket(short: Path) -> None:
    (short / "sub").mkdir()
    podledger("init", "root", folder=short)
    podledger("spawned", "p", "--socket", "p.sock", folder=short)
    with silent_at(short / "p.sock"):
        found = podledger_json("--db", short / "podledger.db", "reconcile", "--attempts", "1", folder=short / "sub")
    assert [result["verdict"] for result in found] == ["alive"]


# The cost


def test_streaks_of_many_pods_cost_one_look_at_the_log() -> None:
    """Before, each pod cost a scan of the log."""
    bench = Bench([spawned(f"p{number}") for number in range(200)])
    bench.append(*[turned("busy")] * 2000)

    def steps(count: int) -> int:
        after = dict.fromkeys([f"p{number}" for number in range(count)], 1)
        return bench.steps(lambda: failure_streaks(bench.connection, OWNER, after))

    assert steps(200) < 3 * steps(1)


def test_streaks_end_at_other_events_and_first_attempts() -> None:
    def failed(name: str, attempt: int) -> PodUnreachable:
        return PodUnreachable(pod_name=name, reason="-", attempt=attempt)

    bench = Bench([spawned("a"), spawned("b"), spawned("c"), failed("a", 1), failed("b", 1), failed("c", 1)])
    bench.append(failed("a", 2), turned("b"), failed("c", 1))
    bench.append(failed("a", 3), failed("b", 1))
    found = failure_streaks(bench.connection, OWNER, {"a": 1, "b": 2, "c": 3, "d": 0})
    assert {name: (streak.attempts, streak.since_us) for name, streak in found.items()} == {
        "a": (3, 2_000_000),
        "b": (1, 4_000_000),
        "c": (1, 3_000_000),
    }
    assert failure_streaks(bench.connection, OWNER, {"a": 8})["a"].attempts == 3
    assert failure_streaks(bench.connection, OWNER, {}) == {}
