"""The receiver under attack: it keeps every honest report, and its memory stays bounded."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podledger.client.delivery import deliver
from podledger.client.sender import line_of
from tests.sockets import short_folder
from tests.waiting import block_until

MEMORY_MIB = 250
HONEST = line_of({"kind": "turn_ended", "pod_name": "honest"})

SERVE = """
import asyncio, logging, signal, sys
from podledger import Ledger, Receiver
from podledger.server.limits import Limits

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    limits = Limits(**eval(sys.argv[3]))
    async with Ledger.open(sys.argv[2], "root") as ledger, Receiver(ledger, sys.argv[1], limits=limits):
        print("ready", flush=True)
        await stop.wait()

logging.basicConfig()
asyncio.run(main())
"""

ATTACK = """
import socket, sys, time
path, count, data = sys.argv[1], int(sys.argv[2]), eval(sys.argv[3])

def connect():
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    link.setblocking(False)
    return link

sent = {connect(): 0 for _ in range(count)}
print("attacking", flush=True)
while True:
    for link, at in list(sent.items()):
        try:
            sent[link] = (at + link.send(data[at : at + 65536])) % len(data) if data else 0
        except BlockingIOError:
            continue
        except OSError:
            del sent[link]
            sent[connect()] = 0
    time.sleep(0.001)
"""

ATTACKS = {
    "silence": "b''",
    "an endless line": "b'x' * 65536",
    "garbage": r"b'garbage\n' * 8000",
    "blank lines": r"b'\n' * 65536",
    "deep nesting": r"b'[' * 60000 + b'\n'",
    "lists of a megabyte": r"""b'{"method":"pod_event","params":[' + b'[],' * 300_000 + b'[]]}\n'""",
    "reports of a megabyte": r"""b'{"method":"pod_event","params":{"kind":"errored","pod_name":"x","message":"'"""
    r"""+ '\U0001f600'.encode() + b'a' * 1_000_000 + b'"}}\n'""",
    "a flood of reports": r"""b'{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"x"}}\n' * 800""",
    "scopes without end": r"""b'{"method":"pod_event","params":{"kind":"scope_sub_delegated","parent_pod":"a","""
    r""""sub_pod":"x","sub_socket":"","scope":['"""
    r"""+ b','.join([b'{"target":"/%d","permission":"read"}' % n for n in range(4900)]) + b']}}\n'""",
    "questions": r"""b'{"method":"list_pods"}\n' * 1000""",
    "forged facts": r"""b'{"method":"pod_event","params":{"kind":"pod_exited","pod_name":"x","exit_code":0}}\n' * 99""",
}


class Served:
    """A receiver in a process of its own."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.path = folder / "s"
        self.database = folder / "l.db"
        self.process = process

    def stop(self) -> str:
        """Stop it with SIGTERM; return its standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return errors

    def peak_mib(self) -> int:
        """Return its peak memory in MiB."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return int(found[1]) >> 10

    def count(self, where: str, table: str = "events") -> int:
        """Return how many rows of a table match."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            [(count,)] = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchall()
        return int(count)


@contextlib.contextmanager
def served(**limits: object) -> Iterator[Served]:
    with short_folder() as folder:
        command = [sys.executable, "-c", SERVE, str(folder / "s"), str(folder / "l.db"), repr(limits)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield Served(folder, process)
        finally:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def attacked(path: Path, data: str, connections: int) -> Iterator[None]:
    """Run an attack on many connections until the block ends."""
    command = [sys.executable, "-c", ATTACK, str(path), str(connections), data]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert attacker.stdout
        assert attacker.stdout.readline() == "attacking\n"
        yield
    finally:
        attacker.kill()
        attacker.communicate()


@pytest.mark.parametrize("data", ATTACKS.values(), ids=ATTACKS.keys())
def test_honest_reports_survive_hundreds_of_hostile_connections(data: str) -> None:
    with served() as here:
        with attacked(here.path, data, 250):
            for _ in range(12):
                deliver(here.path, HONEST)
        peak_mib = here.peak_mib()
        errors = here.stop()
        assert here.count("pod_name = 'honest'") == 12
    assert "Traceback" not in errors
    assert peak_mib < MEMORY_MIB


@pytest.mark.parametrize("attack", ["silence", "an endless line", "a flood of reports", "questions"])
def test_process_with_every_connection_keeps_nobody_out(attack: str) -> None:
    with served(max_connections=50) as here:
        with attacked(here.path, ATTACKS[attack], 100):
            for _ in range(3):
                deliver(here.path, HONEST)
        errors = here.stop()
        assert here.count("pod_name = 'honest'") == 3
    assert "Traceback" not in errors


@pytest.mark.parametrize("line", [b'{"method":"run"}\n', HONEST.replace(b"honest", b"x")], ids=["requests", "reports"])
def test_many_processes_with_every_connection_keep_nobody_out(line: bytes) -> None:
    """Each of nine processes holds less than a large share, and together they hold every place."""
    with served(max_connections=50) as here, contextlib.ExitStack() as attackers:
        for _ in range(9):
            attackers.enter_context(attacked(here.path, repr(line), 6))
        for _ in range(10):
            deliver(here.path, HONEST)
        attackers.close()
        errors = here.stop()
        assert here.count("pod_name = 'honest'") == 10
    assert "Traceback" not in errors


def test_flood_does_not_starve_other_senders() -> None:
    """An honest report waits for a share of the queue, not for the end of the flood."""
    with served(max_queued=400, max_batch=100) as here, attacked(here.path, ATTACKS["a flood of reports"], 20):
        block_until(lambda: here.count("pod_name = 'x'"))
        for n in range(5):
            before = here.count("1")
            deliver(here.path, HONEST)
            while here.count("pod_name = 'honest'") <= n:
                time.sleep(0.002)
            assert here.count("1") - before < 20_000
        assert here.count("pod_name = 'x'") > 100


def test_reports_confirmed_by_list_pods_survive_a_kill() -> None:
    with served() as here, socket.socket(socket.AF_UNIX) as link:
        link.connect(str(here.path))
        answers = link.makefile("rb")
        answers.readline()
        for _ in range(20):
            link.sendall(HONEST * 7 + b'{"method":"list_pods"}\n')
            assert json.loads(answers.readline())["event"] == "pods_listed"
        here.process.kill()
        here.process.wait()
        assert here.count("pod_name = 'honest'") == 140


def test_stop_during_a_flood_keeps_read_lines() -> None:
    with served(drain_grace_s=0.3) as here, attacked(here.path, ATTACKS["a flood of reports"], 50):
        block_until(lambda: here.count("pod_name = 'x'"))
        errors = here.stop()
        assert "Traceback" not in errors
        assert "could not be committed" not in errors
        assert not here.path.exists()
        assert here.count("digest = ''") == 0
