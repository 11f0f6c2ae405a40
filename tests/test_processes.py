"""Processes are identified by pid and start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podledger.host.processes import Process, identify, is_descendant, is_running

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]
NESTED = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *SLEEPER]


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def only_child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while True:
        if found := children.read_text().split():
            return int(found[0])


def test_running_process_is_identified(child: subprocess.Popen[bytes]) -> None:
    found = identify(child.pid)
    assert found is not None
    assert (found.pid, found.uid) == (child.pid, os.geteuid())
    assert is_running(found.pid, found.start)


def test_process_with_another_start_is_not_the_same(child: subprocess.Popen[bytes]) -> None:
    found = identify(child.pid)
    assert found is not None
    assert not is_running(child.pid, found.start + "0")
    assert not is_descendant(child.pid, Process(child.pid, found.start + "0", found.uid))


def test_killed_process_is_not_running_before_it_is_reaped(child: subprocess.Popen[bytes]) -> None:
    found = identify(child.pid)
    assert found is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None
    assert not is_running(found.pid, found.start)


@pytest.mark.parametrize("pid", [0, -1, 1 << 30])
def test_pid_without_a_process_is_none(pid: int) -> None:
    assert identify(pid) is None
    assert not is_running(pid, "")


def test_grandchild_descends_and_unrelated_process_does_not(child: subprocess.Popen[bytes]) -> None:
    unrelated = identify(child.pid)
    assert unrelated is not None
    with subprocess.Popen(NESTED, stdin=subprocess.PIPE) as middle:
        grandchild = only_child_of(middle.pid)
        above = identify(middle.pid)
        us = identify(os.getpid())
        assert above is not None
        assert us is not None
        assert is_descendant(grandchild, above)
        assert is_descendant(grandchild, us)
        assert not is_descendant(grandchild, unrelated)
        assert not is_descendant(os.getpid(), above)
        assert middle.stdin is not None
        middle.stdin.close()
