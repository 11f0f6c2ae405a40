"""The socket file: claimed only where nobody listens, closed to other users, removed only by its owner."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from podledger.core.errors import SocketError
from podledger.server.socket_file import SocketFile
from tests.sockets import dead_at, silent_at

HOLD = """
import sys, time
from podledger.core.errors import SocketError
from podledger.server.socket_file import SocketFile
sys.stdin.read(1)
try:
    file = SocketFile.claim(sys.argv[1])
except SocketError as error:
    print(error.message, flush=True)
else:
    print("mine", flush=True)
    sys.stdin.read(1)
"""


@pytest.fixture
def path(short: Path) -> Path:
    return short / "s"


def held(path: Path) -> subprocess.Popen[str]:
    """Start a process that claims `path` at the first letter of its input, and exits at the second."""
    command = [sys.executable, "-c", HOLD, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def send_letter(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("x")
    process.stdin.flush()


def result_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        try:
            link.connect(str(path))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_mode_is_0600_under_any_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        file = SocketFile.claim(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.remove()
    file.close()


def test_closed_socket_leaves_no_files(path: Path) -> None:
    file = SocketFile.claim(path)
    assert can_connect(path)
    file.remove()
    file.close()
    assert not any(path.parent.iterdir())


def test_dead_socket_is_replaced(path: Path) -> None:
    dead_at(path)
    file = SocketFile.claim(path)
    assert can_connect(path)
    file.close()


def test_live_socket_of_another_program_is_refused(path: Path) -> None:
    with silent_at(path):
        with pytest.raises(SocketError, match="another receiver is listening") as refusal:
            SocketFile.claim(path)
        assert can_connect(path)
    assert refusal.value.hint
    assert not any(path.parent.iterdir())


def test_live_socket_with_a_full_queue_is_refused(path: Path) -> None:
    with silent_at(path, backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        with pytest.raises(SocketError, match="another receiver is listening"):
            SocketFile.claim(path)


def test_regular_file_is_refused_and_kept(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(SocketError, match="in the way: it is not a socket"):
        SocketFile.claim(path)
    assert path.read_text() == "precious"


def test_symbolic_link_is_refused_even_to_a_dead_socket(path: Path) -> None:
    path.symlink_to(dead_at(path.with_name("elsewhere")))
    with pytest.raises(SocketError, match="a symbolic link"):
        SocketFile.claim(path)
    assert path.is_symlink()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 110, "too long for a socket"),
        ("no/such/folder", "cannot create"),
        ("nul\0", "cannot be the path of a socket"),
    ],
)
def test_unusable_path_is_refused_with_a_hint(path: Path, name: str, reason: str) -> None:
    with pytest.raises(SocketError, match=reason) as refusal:
        SocketFile.claim(path.parent / name)
    assert refusal.value.hint


def test_empty_path_is_refused() -> None:
    with pytest.raises(SocketError, match="cannot be the path of a socket"):
        SocketFile.claim("")


def test_file_that_replaced_the_socket_is_not_removed(path: Path) -> None:
    file = SocketFile.claim(path)
    path.unlink()
    path.write_text("another's")
    file.remove()
    file.close()
    assert path.read_text() == "another's"


def test_killed_receiver_does_not_block_the_next(path: Path) -> None:
    killed = held(path)
    send_letter(killed)
    assert result_of(killed) == "mine"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert path.exists()
    file = SocketFile.claim(path)
    file.remove()
    file.close()
    assert not any(path.parent.iterdir())


@pytest.mark.parametrize("dead", [False, True], ids=["free", "dead"])
def test_only_one_of_many_simultaneous_claims_succeeds(path: Path, dead: bool) -> None:
    if dead:
        dead_at(path)
    rivals = [held(path) for _ in range(8)]
    for rival in rivals:
        send_letter(rival)
    answers = [result_of(rival) for rival in rivals]
    assert can_connect(path)
    for rival in rivals:
        rival.communicate("x")
    assert answers.count("mine") == 1
    assert all("another receiver is listening" in answer for answer in answers if answer != "mine")
