"""Databases that others made to keep an auditor's command busy without end, or to make it take all memory."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection

from podledger import Ledger
from podledger.core.errors import DamagedError, StorageError, TimeLimitError
from podledger.store.connections import read_only
from podledger.store.driver import advancing
from podledger.store.sqlite import bounded
from tests.faults.samples import make_sample
from tests.given import OWNER
from tests.runner import clean_environment
from tests.support import connected

ENDLESS = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT {columns} FROM n WHERE random() IS NULL"
)
READ = ("alembic_version", "events", "ledgers", "tenures")
"""Tables that at least one command reads."""

MIB = 1 << 20
MAX_DATA_BYTES = 420 * MIB
MAX_RESIDENT_BYTES = 250 * MIB

COMMANDS = (
    ("events", "--json"),
    ("verify", "--json"),
    ("doctor",),
    ("pods", "--all", "--json"),
    ("rejected", "--json"),
    ("outbox", "--json"),
    ("export", "-"),
    ("recover", "{db}", "{folder}/saved.db"),
    ("bundle", "{folder}/part.db"),
)


class Ended(NamedTuple):
    """How a command in a process with little memory ended, and how much of it the process used."""

    status: int
    error: str
    resident_bytes: int


MEASURED = """
import sys
from pathlib import Path
from podledger.cli import main
status = main()
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(peak, file=sys.stderr)
sys.exit(status)
"""
"""A program that runs a command, and prints its peak of resident memory in KiB as the last line of its errors."""


def limited(path: Path, *words: str) -> Ended:
    """Run a command on a database with a limit of memory that the kernel sets; discard its standard output."""
    command = ["prlimit", f"--data={MAX_DATA_BYTES}", sys.executable, "-c", MEASURED, "--db", str(path)]
    command += [word.format(db=path, folder=path.parent) for word in words]
    done = subprocess.run(
        command,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    *errors, peak = done.stderr.splitlines()
    return Ended(done.returncode, "\n".join(errors), int(peak) * 1024)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "l.db"
    asyncio.run(make_sample(path))
    return path


def make_endless(path: Path, table: str) -> None:
    """Replace a table by a view with its columns whose rows never come."""
    with connected(path) as db:
        columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
        db.execute("PRAGMA legacy_alter_table = ON")
        db.execute(f"DROP TABLE {table}")
        view = ENDLESS.format(columns=", ".join(f"i AS {name}" for name in columns))
        db.execute(f"CREATE VIEW {table} AS {view}")


@pytest.mark.parametrize("table", READ)
def test_endless_view_in_place_of_a_table_ends_no_command_late(sample: Path, table: str) -> None:
    make_endless(sample, table)
    asked = (["pods"], ["verify"], ["doctor"], ["events"], ["recover", str(sample), f"{sample}.new"])
    script = f"""
from tests.runner import podledger
for words in {asked!r}:
    print(podledger("--db", {str(sample)!r}, *words, status=None).status)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean_environment(), timeout=60, capture_output=True, check=True
    )
    recovered = "0" if table == "alembic_version" else "1"  # a recovery does not read that table
    assert done.stdout.decode().split() == ["1", "1", "1", "1", recovered]


def test_refusal_names_the_table(sample: Path) -> None:
    make_endless(sample, "tenures")
    with pytest.raises(DamagedError, match=r"the table tenures is not podledger's"), read_only(sample):
        pass


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE pods (ledger TEXT, pod_name TEXT AS (hex(zeroblob(9))), newest, status, tenure_from, early_ends)",
        "CREATE VIRTUAL TABLE pods USING rtree (ledger, pod_name, newest)",
        "CREATE VIEW PODS AS SELECT 1 AS ledger",
    ],
)
def test_anything_but_the_own_table_is_refused(sample: Path, definition: str) -> None:
    with connected(sample) as db:
        db.execute("PRAGMA legacy_alter_table = ON")
        db.execute("DROP TABLE pods")
        db.execute(definition)
    with pytest.raises(DamagedError, match="the table pods"), read_only(sample):
        pass


def test_catalogue_entry_under_another_name_is_refused(sample: Path) -> None:
    with connected(sample) as db:
        db.execute("PRAGMA legacy_alter_table = ON")
        db.execute("DROP TABLE pods")
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "INSERT INTO sqlite_master VALUES ('view', 'innocent', 'innocent', 0, 'CREATE VIEW pods AS SELECT 1')"
        )
    with pytest.raises(DamagedError), read_only(sample) as connection:
        connection.exec_driver_sql("SELECT * FROM pods")


def test_statement_that_does_not_end_is_stopped(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "LEAST_S", 0.0)
    monkeypatch.setattr(bounded, "S_PER_BYTE", 0.0)
    with read_only(sample) as connection, pytest.raises(TimeLimitError, match="did not end within"):
        connection.exec_driver_sql(ENDLESS.format(columns="i"))
    with read_only(sample) as connection, pytest.raises(TimeLimitError):
        read_to_the_end(connection, "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")


def read_to_the_end(connection: Connection, statement: str) -> None:
    """Read the rows of a statement in pages: each row comes soon, but there may be no last one."""
    cursor = connection.connection.cursor()
    cursor.execute(statement)
    while cursor.fetchmany(500):
        pass


def test_answer_that_takes_too_much_memory_is_refused(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MAX_ANSWER_BYTES", 10_000)
    with pytest.raises(StorageError, match="larger than podledger reads"), read_only(sample) as connection:
        connection.exec_driver_sql("SELECT * FROM main.events").all()


def test_index_without_order_ends_no_page_twice() -> None:
    assert advancing([(1,), (2,)], 0, 0)
    wrong: list[list[Sequence[Any]]] = [[(1,)], [(2,), (0,)], [("3",)], [(None,)]]
    for rows in wrong:
        with pytest.raises(DamagedError):
            advancing(rows, 0, 1)


async def test_open_ledger_whose_table_was_replaced_is_not_read(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
        make_endless(tmp_path / "l.db", "pods")
        result = await ledger.verify()
    assert "table pods is missing" in [problem.detail for problem in result.problems]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a large text in each column of 60 rows of each table: four bytes a character in memory."""
    path = tmp_path_factory.mktemp("large") / "l.db"
    asyncio.run(make_sample(path, rounds=12))
    with connected(path) as db:
        for trigger in [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]:
            db.execute(f"DROP TRIGGER {trigger}")
        db.execute("CREATE TEMP TABLE big AS SELECT replace(hex(zeroblob(50000)), '00', 'xx') || '\U0001f600' AS text")
        for table, keys in (
            ("events", "ledger seq kind"),
            ("tenures", "ledger pod_name from_seq"),
            ("rejected", "ledger number"),
            ("outbox", "ledger number status payload"),
        ):
            columns = db.execute(f"PRAGMA table_info({table})").fetchall()
            texts = [name for _, name, kind, *_ in columns if kind in ("TEXT", "BLOB") and name not in keys.split()]
            db.execute(
                f"UPDATE {table} SET "
                + ", ".join(f"{name} = (SELECT text FROM big)" for name in texts if name != "raw")
            )
    return path


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_large_values_take_little_memory(large: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    path = Path(shutil.copy(large, tmp_path / "l.db"))
    ended = limited(path, *words)
    assert "Traceback" not in ended.error
    assert ended.status in (0, 1)
    assert ended.resident_bytes < MAX_RESIDENT_BYTES
