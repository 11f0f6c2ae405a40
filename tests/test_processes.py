"""Processes are identified by pid and start, and a process that the kernel hides is unknown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podledger.host import processes
from podledger.host.processes import AncestryReader, ancestry, liveness, start_of, user_of

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]
NESTED = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *SLEEPER]
NO_PID = 1 << 22
"""The kernel gives no process this pid: it is the least that is too great."""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def identity(pid: int) -> tuple[int, str]:
    start = start_of(pid)
    assert start is not None
    return pid, start


def only_child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while True:
        if found := children.read_text().split():
            return int(found[0])


def test_running_process_is_running(child: subprocess.Popen[bytes]) -> None:
    assert liveness(*identity(child.pid)) == "running"
    assert user_of(child.pid) == os.geteuid()


def test_process_with_another_start_is_gone(child: subprocess.Popen[bytes]) -> None:
    pid, start = identity(child.pid)
    assert liveness(pid, start + "0") == "gone"
    assert liveness(pid, f"another-boot:{start.partition(':')[2]}") == "gone"


def test_killed_process_is_gone_before_it_is_reaped(child: subprocess.Popen[bytes]) -> None:
    found = identity(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_of(child.pid) == found[1]
    assert liveness(*found) == "gone"


@pytest.mark.parametrize("pid", [0, -1, NO_PID])
def test_pid_without_a_process_has_no_start(pid: int) -> None:
    assert start_of(pid) is None
    assert user_of(pid) is None
    assert ancestry(pid) == AncestryReader().read(pid) == ((), False)


def test_process_that_was_reaped_is_gone() -> None:
    assert liveness(NO_PID, identity(os.getpid())[1]) == "gone"


def test_process_of_another_namespace_is_unknown(child: subprocess.Popen[bytes]) -> None:
    boot, _, ticks = identity(child.pid)[1].split(":")
    assert liveness(child.pid, f"{boot}:1:{ticks}") == "unknown"
    assert liveness(child.pid, "") == "unknown"
    assert liveness(1 << 40, f"{boot}:{identity(child.pid)[1].split(':')[1]}:1") == "unknown"


@pytest.mark.parametrize("proc", [["--mount-proc"], []], ids=["own /proc", "outer /proc"])
def test_process_outside_our_namespace_is_unknown(child: subprocess.Popen[bytes], proc: list[str]) -> None:
    """In a container, our pids mean other processes, or none."""
    code = "import sys; from podledger.host.processes import liveness; print(liveness(int(sys.argv[1]), sys.argv[2]))"
    inside = [sys.executable, "-c", code, *map(str, identity(child.pid))]
    done = subprocess.run(["unshare", "--pid", "--fork", *proc, *inside], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.stdout == "unknown\n"


def test_process_that_the_kernel_hides_is_unknown(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `hidepid`, /proc shows no process of another user, although its pid exists."""
    found = identity(child.pid)
    monkeypatch.setattr(processes, "_read_stat", lambda _pid: None)
    assert liveness(*found) == "unknown"


def test_ancestry_leads_up_from_a_grandchild(child: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(NESTED, stdin=subprocess.PIPE) as middle:
        grandchild = only_child_of(middle.pid)
        line, is_complete = ancestry(grandchild)
        assert is_complete
        assert list(line[:3]) == [identity(pid) for pid in (grandchild, middle.pid, os.getpid())]
        assert identity(child.pid) not in line
        reader = AncestryReader()
        assert reader.read(grandchild) == reader.read(grandchild) == (line, True)
        assert middle.stdin is not None
        middle.stdin.close()
