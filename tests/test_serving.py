"""One process serves a ledger, and no ledger reports to itself."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podledger.core.events import TurnEnded
from podledger.host.lock_file import LockFile, LockHeldError, lock_holder
from podledger.ledger import Ledger
from podledger.server.serving import is_same_socket
from tests.runner import podledger, podledger_process, start
from tests.sockets import dead_at


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Serve the ledger in `folder` until the block ends."""
    with start("serve", *words, folder=folder) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("podledger: ready")
            yield server
        finally:
            server.kill()


def refusal(folder: Path, *words: str) -> str:
    """Return the error with which a `serve` ends that is refused."""
    return podledger_process("serve", *words, folder=folder, status=None).err


# Two owners


def test_second_serve_is_refused_with_the_pid_of_the_first(short: Path) -> None:
    podledger("init", "root", folder=short)
    (short / "link.db").symlink_to("podledger.db")
    with serving(short, "--socket", "one") as first:
        second = podledger_process("--db", "link.db", "serve", "--socket", "two", folder=short, status=1)
    assert f"ledger root is already served by process {first.pid}, on {short}/one" in second.err
    assert not (short / "two").exists()


def test_serve_starts_after_the_first_was_killed(short: Path) -> None:
    podledger("init", "root", folder=short)
    with serving(short, "--socket", "one") as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
        with serving(short, "--socket", "two"):
            pass


def test_serve_leaves_no_lock_file(short: Path) -> None:
    podledger("init", "root", folder=short)
    with serving(short, "--socket", "one") as first:
        assert [path for path in short.iterdir() if "serve" in path.name]
        first.send_signal(signal.SIGTERM)
        assert first.wait() == 0
    assert [path for path in short.iterdir() if "serve" in path.name] == []


def test_other_ledgers_of_the_database_can_be_served(short: Path) -> None:
    long = "✓" * 85
    podledger("init", "root", folder=short)
    podledger("init", long, folder=short)
    with serving(short, "--ledger", "root", "--socket", "one"), serving(short, "--ledger", long, "--socket", "two"):
        assert "already served" in refusal(short, "--ledger", long, "--socket", "three")


async def test_library_may_append_while_another_process_serves(short: Path) -> None:
    podledger("init", "root", folder=short)
    with serving(short, "--socket", "one"):
        async with Ledger.open(short / "podledger.db") as ledger:
            assert (await ledger.append(TurnEnded(pod_name="p"))).seq == 1


# Reports to oneself


@pytest.mark.parametrize("own", ["own.sock", "./own.sock", "link/own.sock", "alias.sock"])
def test_serve_on_the_socket_of_the_parent_is_refused(short: Path, own: str) -> None:
    (short / "link").symlink_to(".")
    (short / "alias.sock").symlink_to("own.sock")
    podledger("init", "root", "--parent-socket", "own.sock", folder=short)
    refused = podledger_process("serve", "--socket", own, folder=short, status=2)
    assert "cannot report to itself" in refused.err


def test_socket_of_the_parent_may_not_become_the_served_one(short: Path) -> None:
    podledger("init", "root", folder=short)
    with serving(short, "--socket", "own.sock"):
        refused = podledger("init", "root", "--parent-socket", f"{short}/x/../own.sock", folder=short, status=2)
        assert "cannot report to itself" in refused.err
        podledger("init", "root", "--parent-socket", "other.sock", folder=short)


def test_same_socket_is_found_by_its_file(short: Path) -> None:
    dead_at(short / "one")
    (short / "hard").hardlink_to(short / "one")
    assert is_same_socket(str(short / "one"), str(short / "hard"))
    assert not is_same_socket(str(short / "one"), str(short / "two"))
    assert is_same_socket(str(short / "none/two"), str(short / "none/x/../two"))
    assert not is_same_socket("/x\0y", "/x\0y")


# The lock file


def test_lock_names_its_holder(tmp_path: Path) -> None:
    lock = LockFile.acquire(tmp_path / "lock", "a note\n✓ \udcff")
    with pytest.raises(LockHeldError) as held:
        LockFile.acquire(tmp_path / "lock")
    assert held.value.holder == lock_holder(tmp_path / "lock")
    assert (held.value.holder.pid, held.value.holder.note) == (os.getpid(), "a note\n✓ \udcff")
    lock.release()
    assert lock_holder(tmp_path / "lock") is None
    LockFile.acquire(tmp_path / "lock").release()


def test_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4194304\nboot:1:2\nnote")
    assert lock_holder(tmp_path / "lock") is None
    LockFile.acquire(tmp_path / "lock").release()


@pytest.mark.parametrize("text", [b"", b"x\n", b"\xff" * 10_000, b"9" * 5000])
def test_lock_holder_of_any_bytes_is_nobody(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "lock").write_bytes(text)
    assert lock_holder(tmp_path / "lock") is None


def test_lock_file_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / "hard").hardlink_to(tmp_path / "precious")
    (tmp_path / "soft").symlink_to("precious")
    os.mkfifo(tmp_path / "pipe")
    for name in ("hard", "soft", "pipe"):
        with pytest.raises(OSError, match=r"place|symbolic"):
            LockFile.acquire(tmp_path / name)
    assert (tmp_path / "precious").read_text() == "text"
