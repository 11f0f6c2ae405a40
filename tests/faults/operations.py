"""The operations that the fault tests interrupt: how each starts, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from podledger import Ledger, TurnEnded
from podledger.archive.backup import backup
from podledger.archive.transfer import export_lines, import_lines, read_lines
from podledger.core.entries import Entry
from podledger.mirror import write_mirror
from podledger.store.log import Rejection
from tests.assets.make import asset
from tests.faults.samples import make_sample
from tests.given import OWNER, spawned

Ack = Callable[[int, str], None]
NAME = "ledger.db"
BATCH = 5


class Operation(NamedTuple):
    """`prepare` makes the starting state; `run` calls `ack` for each acknowledged seq and digest; `check` follows."""

    prepare: Callable[[Path], Awaitable[object]]
    run: Callable[[Path, Ack], Awaitable[object]]
    check: Callable[[Path], Awaitable[object]]


def _ack(ack: Ack, entries: list[Entry]) -> None:
    for entry in entries:
        ack(entry.seq, entry.digest)


async def _nothing(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


async def _some(folder: Path) -> None:
    await make_sample(folder / NAME, rounds=2)


async def _append(folder: Path, ack: Ack) -> None:
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        _ack(ack, [await ledger.append(TurnEnded(pod_name="child"))])
        _ack(ack, await ledger.append_many([spawned(f"batch-{number}") for number in range(BATCH)]))
        await ledger.commits.append([], [Rejection(b"garbage", "not JSON", None)])
        _ack(ack, [await ledger.append(spawned("last"))])


async def _check_batch(folder: Path) -> None:
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        batch = [entry async for entry in ledger.entries() if entry.pod_name.startswith("batch-")]
        assert len(batch) % BATCH == 0, "half of a batch"


async def _init(folder: Path, ack: Ack) -> None:
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        await ledger.configure(parent_socket="/run/parent.sock")
        _ack(ack, [await ledger.append(TurnEnded(pod_name="child"))])


async def _wrong_projections(folder: Path) -> None:
    """Make a ledger with wrong projections, so that a rebuild has something to write."""
    await _some(folder)
    with sqlite3.connect(folder / NAME) as connection:
        connection.execute("UPDATE tenures SET socket_path = 'wrong'")
        connection.execute("DELETE FROM grants")
    connection.close()


async def _rebuild(folder: Path, _ack: Ack) -> None:
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        await ledger.rebuild()


async def _check_rebuild(folder: Path) -> None:
    """Check that the rebuild happened completely or not at all, and that another rebuild succeeds."""
    with sqlite3.connect(folder / NAME) as connection:
        wrong, grants = connection.execute(
            "SELECT (SELECT count(*) FROM tenures WHERE socket_path = 'wrong'), (SELECT count(*) FROM grants)"
        ).fetchone()
    connection.close()
    assert bool(wrong) != bool(grants), "half of a rebuild"
    await _rebuild(folder, lambda _seq, _digest: None)


async def _to_import(folder: Path) -> None:
    """Make an empty ledger and the export of another one."""
    folder.mkdir(exist_ok=True)
    await make_sample(folder.parent / "other.db", rounds=3)
    async with Ledger.open(folder.parent / "other.db") as other:
        (folder.parent / "export.jsonl").write_bytes(b"".join([line async for line in export_lines(other)]))
    async with Ledger.open(folder / NAME, OWNER):
        pass


async def _import(folder: Path, ack: Ack) -> None:
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        lines = (folder.parent / "export.jsonl").read_bytes().splitlines(keepends=True)
        wire = [b'{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"child"}}\n'] * BATCH
        async for _ in import_lines(ledger, read_lines([*lines, *wire], OWNER)):
            head = await ledger.head()
            ack(head.head_seq, head.head_digest)


async def _check_import(folder: Path) -> None:
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        assert (await ledger.head()).head_seq in (0, 15, 15 + BATCH), "half of a batch"


async def _mirror(folder: Path, _ack: Ack) -> None:
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        await ledger.append(spawned("mirrored"))
        await asyncio.to_thread(write_mirror, folder / "pods.json", await ledger.pods(), folder / NAME)


async def _check_mirror(folder: Path) -> None:
    import json

    mirror = folder / "pods.json"
    assert not mirror.exists() or json.loads(mirror.read_text())


async def _backup(folder: Path, _ack: Ack) -> None:
    await asyncio.to_thread(backup, folder / NAME, folder / "backup.db")


async def _check_backup(folder: Path) -> None:
    """Check that the backup is complete or does not exist."""
    if (folder / "backup.db").exists():
        async with Ledger.open(folder / "backup.db") as ledger:
            await check_open(ledger, [])
            assert (await ledger.head()).head_seq == 10


async def _old(folder: Path) -> None:
    """Copy a ledger with an older schema."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(asset("0001"), folder / NAME)


async def _check_upgrade(folder: Path) -> None:
    """Check that the upgrade happened completely or not at all."""
    with sqlite3.connect(folder / NAME) as connection:
        ((revision,),) = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        (views,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'view'").fetchone()
    connection.close()
    assert (revision == "0001") == (views == 0), "half of an upgrade"


OPERATIONS = {
    "append": Operation(_some, _append, _check_batch),
    "init": Operation(_nothing, _init, _nothing),
    "upgrade": Operation(_old, _init, _check_upgrade),
    "rebuild": Operation(_wrong_projections, _rebuild, _check_rebuild),
    "import": Operation(_to_import, _import, _check_import),
    "backup": Operation(_some, _backup, _check_backup),
    "mirror": Operation(_some, _mirror, _check_mirror),
}


def fresh(template: Path, folder: Path) -> None:
    """Restore the starting state of an operation."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)


async def check_ledger(folder: Path, acked: list[tuple[int, str]]) -> None:
    """Check that all acknowledged entries are in the ledger, and that it verifies."""
    async with Ledger.open(folder / NAME, OWNER) as ledger:
        await check_open(ledger, acked)


async def check_open(ledger: Ledger, acked: list[tuple[int, str]]) -> None:
    """Check an open ledger as `check_ledger` does."""
    digests = {entry.seq: entry.digest async for entry in ledger.entries()}
    lost = [seq for seq, digest in acked if digests.get(seq) != digest]
    assert not lost, f"acknowledged entries are lost: {lost}"
    result = await ledger.verify()
    assert result.ok, result.problems
