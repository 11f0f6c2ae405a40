"""Permissions: only the owner can read the files under any umask, and another user's reports are refused."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podledger import Ledger, Receiver
from podledger.archive.backup import backup
from podledger.core.errors import StorageError
from podledger.server.limits import Limits
from tests.given import OWNER, spawned
from tests.runner import podledger
from tests.waiting import wait_until

NOBODY = 65534


@pytest.fixture(params=[0o000, 0o022, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


async def test_only_the_owner_can_read_the_files(tmp_path: Path, umask: int) -> None:
    folder = tmp_path / "made"
    folder.mkdir(0o700)
    folder.chmod(0o700)
    async with Ledger.open(folder / "a.db", OWNER) as ledger, Receiver(ledger, folder / "root.sock"):
        await ledger.configure(mirror=str(folder / "pods.json"))
        await ledger.append(spawned("child"))
        await asyncio.to_thread(backup, folder / "a.db", folder / "backup.db")
        podledger("--db", folder / "a.db", "export", folder / "export.jsonl")
        podledger("recover", folder / "a.db", folder / "saved.db")
        await wait_until((folder / "pods.json").exists)
        modes = {file.name: stat.S_IMODE(file.lstat().st_mode) for file in folder.iterdir()}
    assert {"a.db", "a.db-wal", "a.db-shm", "root.sock", "backup.db", "export.jsonl", "saved.db"} <= modes.keys()
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
async def test_symbolic_link_instead_of_a_file_is_refused(tmp_path: Path, end: str) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / f"a.db{end}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        async with Ledger.open(tmp_path / "a.db", OWNER) as ledger:
            await ledger.append(spawned("child"))
    assert (tmp_path / "elsewhere").read_bytes() == b""


AS_NOBODY = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as link:
    link.settimeout(10)
    link.connect(sys.argv[1])
    try:
        greeting = link.recv(65536)
        link.sendall(b'{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"child"}}\\n')
        link.shutdown(socket.SHUT_WR)
        while link.recv(65536): pass
    except OSError:
        greeting = b""
print(json.dumps(bool(greeting)))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("allowed", [False, True])
async def test_second_user_is_refused_unless_allowed(short: Path, allowed: bool) -> None:
    short.chmod(0o755)
    limits = Limits(allowed_uids=frozenset({NOBODY}) if allowed else frozenset())
    async with Ledger.open(short / "a.db", OWNER) as ledger:
        async with Receiver(ledger, short / "root.sock", limits=limits):
            (short / "root.sock").chmod(0o666)
            command = [sys.executable, "-S", "-c", AS_NOBODY, str(short / "root.sock")]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
        senders = [entry.sender async for entry in ledger.entries()]
    assert json.loads(done.stdout) is allowed
    assert [sender.uid for sender in senders if sender] == ([NOBODY] if allowed else [])


def test_new_socket_is_not_open_to_others(short: Path) -> None:
    """Its file has mode 0600 as soon as it exists."""
    from podledger.server.socket_file import SocketFile

    before = os.umask(0)
    try:
        file = SocketFile.claim(short / "root.sock")
    finally:
        os.umask(before)
    assert stat.S_IMODE((short / "root.sock").lstat().st_mode) == 0o600
    assert isinstance(file.listener, socket.socket)
    file.remove()
    file.close()
