"""Several processes on one ledger: no gaps, no lock errors, and a WAL that stays small."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from podledger import Ledger
from podledger.archive.backup import backup
from tests.faults.operations import NAME, check_ledger
from tests.given import OWNER, spawned, writes

WRITER = """
import asyncio, sys
from podledger import Ledger, PodSpawned, ShutDown

async def main(path, name, count):
    async with Ledger.open(path, "root", busy_timeout_s=60.0) as ledger:
        for number in range(count):
            pod = f"{name}-{number % 7}"
            for entry in await ledger.append_many(
                [PodSpawned(pod_name=pod, socket_path="/run/s"), ShutDown(pod_name=pod)]
            ):
                print(entry.seq, entry.digest, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, name, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def use_concurrently(folder: Path, count: int) -> None:
    """Run two writers, a reader with a long transaction, backups and rebuilds; check all acknowledged entries."""
    path = folder / NAME
    async with Ledger.open(path, OWNER, busy_timeout_s=60.0) as ledger:
        await ledger.append(spawned("first"))
        writers = [writer(path, name, count) for name in ("one", "other")]
        outputs = asyncio.gather(*(asyncio.to_thread(process.communicate) for process in writers))
        rounds = 0
        while not outputs.done():
            reader = sqlite3.connect(path, isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            await ledger.rebuild()
            await asyncio.to_thread(backup, path, folder / f"backup-{rounds}.db")
            await ledger.append(spawned(f"own-{rounds}"))
            reader.close()
            rounds += 1
        acked = [(int(seq), digest) for out, _ in await outputs for seq, digest in map(str.split, out.splitlines())]
    assert [errors for _, errors in await outputs] == ["", ""]
    assert len(acked) == 4 * count
    await check_ledger(folder, acked)
    for number in range(rounds):
        async with Ledger.open(folder / f"backup-{number}.db") as copy:
            assert (await copy.verify()).ok
    assert rounds > 0


async def test_writers_readers_backups_and_rebuilds_at_once(tmp_path: Path) -> None:
    await use_concurrently(tmp_path, 60)


@pytest.mark.soak
async def test_long_run_of_two_writers(tmp_path: Path) -> None:
    await use_concurrently(tmp_path, 3_000)


async def test_wal_stays_small_while_others_read(tmp_path: Path) -> None:
    """Readers come and go, so SQLite can reuse the WAL from its start."""
    async with Ledger.open(tmp_path / NAME, OWNER) as ledger:
        written = asyncio.Event()

        async def read() -> None:
            while not written.is_set():
                await ledger.pods()

        reading = [asyncio.create_task(read()) for _ in range(2)]
        for number in range(150):
            targets = [f"/w/{number}/{rule}/" + "x" * 500 for rule in range(60)]
            await ledger.append(spawned(f"pod-{number}", scope=writes(*targets)))
        size = (tmp_path / f"{NAME}-wal").stat().st_size
        written.set()
        await asyncio.gather(*reading)
    assert size < 24 << 20
