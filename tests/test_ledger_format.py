"""The ledger format: the verifier on `docs/ledger-format.md`, run against good and altered ledgers."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Table

from podledger import Ledger
from podledger.bundle import tables as bundle_tables
from podledger.bundle.request import BundleRequest
from podledger.core.digest import NO_DIGEST, chain_digest
from podledger.store.tables import metadata
from tests.given import make_ledger
from tests.support import alter

PAGE = (Path(__file__).parent.parent / "docs" / "ledger-format.md").read_text()
VERIFIER, REJECTED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def verified(database: Path, program: str = VERIFIER) -> subprocess.CompletedProcess[str]:
    """Run a program on a database, in a Python that cannot find podledger."""
    command = [sys.executable, "-I", "-S", "-c", program, str(database)]
    return subprocess.run(command, cwd=database.parent, capture_output=True, text=True, timeout=60, check=False)


def test_verifier_is_short_and_uses_only_the_standard_library() -> None:
    assert len(VERIFIER.splitlines()) <= 20
    assert VERIFIER.startswith("import hashlib, sqlite3, sys\n")
    assert "import" not in VERIFIER.split("\n", 1)[1]


def test_bundle_holds_the_documented_verifier() -> None:
    assert (Path(__file__).parent.parent / "podledger" / "bundle" / "verifier.txt").read_text() == VERIFIER


async def test_verifier_prints_the_notes_of_good_ledgers(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db", "one")
    await make_ledger(tmp_path / "db", "two", [])
    async with Ledger.open(tmp_path / "db", "one") as ledger:
        note = await ledger.note()

    done = verified(tmp_path / "db")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"one {note}", f"two 0:{'0' * 64}"]


async def test_verifier_accepts_a_good_bundle(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db")
    async with Ledger.open(tmp_path / "db") as ledger:
        await ledger.bundle(tmp_path / "b", BundleRequest("coder", 3, 6))
        note = await ledger.note(6)

    assert verified(tmp_path / "b").stdout == f"root {note}\n"


COLUMNS = [column.name for column in metadata.tables["events"].columns]


@pytest.mark.parametrize("column", COLUMNS)
async def test_verifier_finds_any_changed_column(tmp_path: Path, column: str) -> None:
    await make_ledger(tmp_path / "db")
    number = column in ("seq", "recorded_us", "pid", "uid", "gid", "sequence", "sent_us", "rules")
    value = "99" if number else "'x'"
    alter(tmp_path / "db", f"UPDATE events SET {column} = {value} WHERE seq = 5")

    assert verified(tmp_path / "db").returncode == 1


ALTERATIONS = [
    "UPDATE events SET source = '' WHERE seq = 5",
    "DELETE FROM events WHERE seq = 5",
    "DELETE FROM events WHERE seq = 8",
    "DELETE FROM events",
    "UPDATE ledgers SET head_seq = 7",
    "UPDATE ledgers SET head_digest = 'x'",
    "UPDATE ledgers SET head_digest = (SELECT digest FROM events WHERE seq = 7)",
    "UPDATE events SET seq = 1000 - seq",
]


@pytest.mark.parametrize("statement", ALTERATIONS)
async def test_verifier_finds_an_altered_ledger(tmp_path: Path, statement: str) -> None:
    await make_ledger(tmp_path / "db")
    alter(tmp_path / "db", statement)

    done = verified(tmp_path / "db")

    assert done.returncode == 1
    assert done.stderr.startswith("root: ")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET payload = '{}' WHERE seq = 3",
        "UPDATE events SET payload = 'x' WHERE seq = 1",
        "UPDATE withheld SET payload_digest = 'x' WHERE seq = 1",
        "DELETE FROM withheld WHERE seq = 1",
        "UPDATE events SET outcome = 'late' WHERE seq = 2",
    ],
)
async def test_verifier_finds_an_altered_bundle(tmp_path: Path, statement: str) -> None:
    await make_ledger(tmp_path / "db")
    async with Ledger.open(tmp_path / "db") as ledger:
        await ledger.bundle(tmp_path / "b", BundleRequest("scout", 3, 6))
    (tmp_path / "b").chmod(0o600)
    alter(tmp_path / "b", statement.replace("seq = 3", "seq = 5"))

    assert verified(tmp_path / "b").returncode == 1


@pytest.mark.parametrize("statement", ["", "UPDATE rejected SET raw = x'00'", "DELETE FROM rejected"])
async def test_documented_addition_verifies_rejected_lines(tmp_path: Path, statement: str) -> None:
    await make_ledger(tmp_path / "db")
    if statement:
        alter(tmp_path / "db", statement)
    program = VERIFIER.replace("import hashlib,", "import json, hashlib,") + REJECTED

    assert verified(tmp_path / "db", program).returncode == (1 if statement else 0)


def test_documented_example_has_the_documented_digest() -> None:
    lines = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)[0]
    [(payload, digest)] = re.findall(r"payload `(.*?)`, and the digest `(.*?)`", PAGE)

    fields = ("root", 1, 1767225600000000, "observed", "pod_spawned", "planner", payload, *[None] * 11, "applied", 1)

    assert len(lines.split("\n")) == 21
    assert lines.split("\n")[7] == hashlib.sha256(payload.encode()).hexdigest()
    assert digest == hashlib.sha256(lines.encode()).hexdigest() == chain_digest(NO_DIGEST, fields)


@pytest.mark.parametrize("table", [*metadata.tables.values(), *bundle_tables.metadata.tables.values()], ids=str)
def test_every_table_and_column_is_documented(table: Table) -> None:
    assert f"`{table.name}`" in PAGE
    assert [column.name for column in table.columns if f"`{column.name}`" not in PAGE] == []
