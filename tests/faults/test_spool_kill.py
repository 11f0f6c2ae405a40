"""Senders, receivers and owners with a spool are killed: no report is lost, and none is applied or notified twice."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from podledger import Ledger, PodSpawned, Receiver, SpoolSweeper
from tests.faults.spooling import POD, WAYS
from tests.given import OWNER, incarnation
from tests.runner import clean_environment, podledger, start
from tests.seeds import SEED, Count
from tests.sockets import dead_at
from tests.waiting import block_until, wait_until

DATABASE = "podledger.db"
REPORTS = 3
SENDERS = 3


def check(folder: Path) -> Counter[str]:
    """Check that each report that must not be lost is there, and is notified and applied once; count the outcomes."""
    kept = (folder / "kept").read_text().splitlines()
    with sqlite3.connect(folder / DATABASE) as connection:
        rows = connection.execute("SELECT payload, outcome FROM events WHERE kind = 'errored'").fetchall()
        (notified,) = connection.execute("SELECT count(*) FROM notifications").fetchone()
    connection.close()
    applied = Counter(json.loads(payload)["message"] for payload, outcome in rows if outcome != "duplicate")
    assert set(kept) <= set(applied), f"lost: {sorted(set(kept) - set(applied))[:10]}"
    assert [text for text, times in applied.items() if times > 1] == []
    assert notified == len(applied)
    return Counter(outcome for _, outcome in rows)


def waiting_lines(folder: Path) -> int:
    """Return how many lines wait in the spool."""
    count = 0
    for path in (folder / "spool").rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):
            count += path.read_bytes().count(b"\n")
    return count


def kill_senders(folder: Path, kills: list[tuple[int, str]]) -> int:
    """Run a sender for each kill; return how many were killed."""
    words = ("calls", folder / "s", folder / "spool", folder / "kept", REPORTS, json.dumps(kills))
    command = [sys.executable, "-m", "tests.faults.spooling", *map(str, words)]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return sum(json.loads(done.stdout.splitlines()[-1]))


async def kill_rounds(folder: Path, kills: list[tuple[int, str]], *, receives: bool) -> int:
    """Kill senders at calls, while a receiver serves them or is away; then sweep."""
    (folder / "kept").touch()
    async with Ledger.open(folder / DATABASE, OWNER) as ledger:
        await ledger.append(PodSpawned(pod_name=POD, socket_path=""))
        if receives:
            async with Receiver(ledger, folder / "s"):
                killed = await asyncio.to_thread(kill_senders, folder, kills)
        else:
            dead_at(folder / "s")
            killed = await asyncio.to_thread(kill_senders, folder, kills)
        async with SpoolSweeper(ledger, folder / "spool"):
            await wait_until(lambda: waiting_lines(folder) == 0)
        assert await ledger.gaps() == []
        assert (await ledger.verify()).ok
    check(folder)
    return killed


@pytest.mark.parametrize("receives", [True, False], ids=["receiving", "away"])
async def test_sender_killed_at_some_calls_loses_nothing(short: Path, receives: bool) -> None:
    dice = random.Random(SEED)
    kills = [(at, way) for way in WAYS for at in sorted(dice.sample(range(1, 30), 6))]
    assert await kill_rounds(short, kills, receives=receives) > 0


@pytest.mark.soak
@pytest.mark.parametrize("receives", [True, False], ids=["receiving", "away"])
async def test_sender_killed_at_every_call_loses_nothing(short: Path, receives: bool, record_property: Count) -> None:
    kills = [(at, way) for way in WAYS for at in range(1, 120)]
    killed = await kill_rounds(short, kills, receives=receives)
    assert len(WAYS) < killed < len(kills), "the last senders came to their end"
    record_property("kills", killed)


class Load:
    """Senders, and a server that is their receiver and owner, all of which may be killed at any moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        podledger("init", OWNER, folder=folder)
        podledger("spawned", POD, "--socket", "c.sock", folder=folder)
        (folder / "kept").touch()
        self.kills = 0
        self.server = self._serve()
        self.senders = [self._send(number) for number in range(SENDERS)]

    def _serve(self) -> subprocess.Popen[str]:
        log = (self.folder / "log").open("a")
        with log:
            server = start("serve", "--socket", "s", "--spool", "spool", folder=self.folder, stderr=log)
        assert server.stdout
        assert server.stdout.readline(), (self.folder / "log").read_text()
        return server

    def _send(self, number: int) -> subprocess.Popen[bytes]:
        """Start a sender; two of them speak for one incarnation."""
        words = ("load", *(self.folder / name for name in ("s", "spool", "kept", "stop")))
        environment = clean_environment() | {"PODLEDGER_INCARNATION": incarnation(1 + number // 2)}
        command = [sys.executable, "-m", "tests.faults.spooling", *map(str, words)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    @property
    def kept(self) -> int:
        return (self.folder / "kept").read_bytes().count(b"\n")

    def kill(self, victim: int) -> None:
        """Kill the server (0) or a sender, and start another."""
        self.kills += 1
        killed = self.senders[victim - 1] if victim else self.server
        killed.kill()
        killed.wait()
        if victim:
            self.senders[victim - 1] = self._send(victim - 1)
        else:
            assert self.server.stdout
            self.server.stdout.close()
            self.server = self._serve()

    def stop(self) -> None:
        """End every process, whatever it does."""
        self.server.kill()
        self.server.wait()
        for sender in self.senders:
            sender.kill()
            sender.wait()

    def finish(self) -> None:
        """Let the senders end, and the owner take in what they left."""
        (self.folder / "stop").touch()
        for sender in self.senders:
            assert sender.wait(120) == 0
        block_until(lambda: waiting_lines(self.folder) == 0, within_s=120)
        self.server.terminate()
        assert self.server.wait(60) == 0
        assert self.server.stdout
        self.server.stdout.close()


def run_load(folder: Path, *, reports: int, kills: int, between: int) -> Load:
    """Report under load; each time that about `between` more reports are kept, kill a process at random.

    It ends after so many reports and kills, whichever is later.
    """
    dice = random.Random(SEED)
    load = Load(folder)
    try:
        while load.kept < reports or load.kills < kills:
            until = load.kept + dice.randrange(1, 2 * between)
            block_until(lambda until=until: load.kept >= until, within_s=120)  # type: ignore[misc]
            load.kill(dice.randrange(SENDERS + 1))
        load.finish()
    finally:
        load.stop()
    assert podledger("gaps", folder=folder).out == "nothing is missing\n"
    podledger("verify", folder=folder)
    return load


def test_kills_under_load_lose_nothing(short: Path) -> None:
    load = run_load(short, reports=2_000, kills=5, between=100)
    outcomes = check(short)
    assert load.kept >= 2_000
    assert outcomes["noted"] >= 2_000


@pytest.mark.soak
def test_many_kills_under_load_lose_nothing(short: Path, record_property: Count) -> None:
    load = run_load(short, reports=100_000, kills=100, between=1_000)
    outcomes = check(short)
    record_property("kills", load.kills)
    record_property("reports", load.kept)
    record_property("repeated and recognized", outcomes["duplicate"])
