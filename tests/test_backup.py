"""Backups: one snapshot of a database in one file, also while another process writes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from podledger import Entry, Ledger
from podledger.archive.backup import backup
from podledger.core.errors import LedgerNotFoundError, StorageError
from tests.given import make_ledger
from tests.runner import podledger, podledger_json

WRITER = """
import asyncio, sys
from podledger import Ledger, TurnEnded

async def main():
    async with Ledger.open(sys.argv[1], "root") as ledger:
        while True:
            await ledger.append_many([TurnEnded(pod_name="writer")] * 20)
            print(flush=True)

asyncio.run(main())
"""


async def log_of(path: Path) -> list[Entry]:
    """Return the log of the only ledger at `path`, which must verify."""
    async with Ledger.open(path) as ledger:
        assert (await ledger.verify()).ok
        return [entry async for entry in ledger.entries()]


async def test_backup_is_the_same_ledger_in_one_private_file(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db")

    result = podledger_json("backup", "--db", tmp_path / "db", tmp_path / "copy")

    assert result == {"file": str(tmp_path / "copy"), "bytes": (tmp_path / "copy").stat().st_size}
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".", "copy"))] == ["copy"]
    assert await log_of(tmp_path / "copy") == await log_of(tmp_path / "db")


async def test_backup_can_be_used_as_a_ledger(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db")
    backup(tmp_path / "db", tmp_path / "copy")

    podledger("spawned", "--db", tmp_path / "copy", "late", "--socket", "/run/late")

    assert len(await log_of(tmp_path / "copy")) == 9


async def test_backups_during_writes_all_verify(tmp_path: Path) -> None:
    db = tmp_path / "db"
    await make_ledger(db)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(db)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        sizes = []
        for number in range(5):
            writer.stdout.readline()
            backup(db, tmp_path / f"copy{number}")
            sizes.append(len(await log_of(tmp_path / f"copy{number}")))
            time.sleep(0.05)
        writer.kill()

    log = await log_of(db)
    assert sizes == sorted(set(sizes))
    assert await log_of(tmp_path / "copy4") == log[: sizes[-1]]


async def test_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db")
    (tmp_path / "copy").write_text("precious")

    refused = podledger("backup", "--db", tmp_path / "db", tmp_path / "copy", status=1).err
    assert (tmp_path / "copy").read_text() == "precious"
    podledger("backup", "--db", tmp_path / "db", tmp_path / "copy", "--force")

    assert "is there already (choose another name, or give --force)" in refused
    assert len(await log_of(tmp_path / "copy")) == 8


async def test_failed_backup_leaves_nothing(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db")

    def interrupt(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(tmp_path / "db", tmp_path / "copies", progress=interrupt)
    with pytest.raises(StorageError, match="was not written"):
        backup(tmp_path / "db", tmp_path / "no folder" / "copy")
    with pytest.raises(LedgerNotFoundError):
        backup(tmp_path / "nothing", tmp_path / "copy")

    assert not [path for path in tmp_path.iterdir() if "cop" in path.name]


async def test_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db")
    (tmp_path / "copy").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StorageError, match="symbolic link"):
        backup(tmp_path / "db", tmp_path / "copy", overwrite=True)

    assert not (tmp_path / "elsewhere").exists()


async def test_backup_holds_every_ledger(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db", "one")
    await make_ledger(tmp_path / "db", "two")

    backup(tmp_path / "db", tmp_path / "copy")

    for name in ("one", "two"):
        assert podledger_json("verify", "--db", tmp_path / "copy", "--ledger", name)["ok"]
