"""`podledger sql`: a query only reads, it ends in time, and its result is limited and safe to print."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.given import errored, spawned, turned, writes
from tests.runner import Result, podledger, podledger_process
from tests.support import connected, ledger_of

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small ledger in it."""
    ledger_of(tmp_path / "podledger.db", spawned("ada", scope=writes("/srv")), errored("ada", "\x1b[2Jgone\n"))
    return tmp_path


def ask(folder: Path, query: str, *options: object) -> Result:
    return podledger("sql", query, *options, folder=folder, status=None)


def ask_apart(folder: Path, query: str, *options: object) -> Result:
    """Run the query in a separate process, where its memory is limited."""
    return podledger_process("sql", query, *options, folder=folder, status=None)


def found(folder: Path, query: str, *options: object) -> Any:
    done = ask(folder, query, "--json", *options)
    assert done.status == 0, done.err
    return done.json()


# Results


def test_query_prints_a_table(folder: Path) -> None:
    done = ask(folder, "SELECT seq, pod_name, outcome FROM event_log")
    assert done.status == 0
    assert [line.split() for line in done.out.splitlines()] == [
        ["seq", "pod_name", "outcome"],
        ["1", "ada", "applied"],
        ["2", "ada", "noted"],
    ]


def test_json_writes_other_values_as_text(folder: Path) -> None:
    query = "SELECT 1 AS x, 2 AS x, 3 AS x_2, x'00ff' AS raw, 9e999 AS much, -9e999 AS little, NULL AS none"
    [row] = found(folder, query)
    assert row == {
        "x": 1,
        "x_2": 2,
        "x_2_2": 3,
        "raw": "00ff",
        "much": "Infinity",
        "little": "-Infinity",
        "none": None,
    }


def test_invalid_utf_8_is_printed_escaped(folder: Path) -> None:
    assert found(folder, "SELECT CAST(x'61ff' AS TEXT) AS t") == [{"t": "a\\xff"}]


def test_csv_starts_no_formula(folder: Path) -> None:
    cells = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "-5", "+2.5", "plain"]
    values = ", ".join("?" for _ in cells)
    query = f"SELECT {values}, -5, 2.5, NULL"
    for cell in cells:
        query = query.replace("?", f"'{cell}'", 1)
    done = ask(folder, query, "--csv")
    _header, row = csv.reader(io.StringIO(done.out, newline=""))
    assert row == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "\\rx", "-5", "+2.5", "plain", "-5", "2.5", ""]


def test_control_characters_never_reach_a_terminal(folder: Path) -> None:
    done = ask(folder, "SELECT payload, char(27) || '[31m' AS \"a\x1b[2Jb\", '[red]x' AS \"[bold]c\" FROM events")
    assert "\x1b" not in done.out
    assert "[bold]c" in done.out


@pytest.mark.parametrize("query", ["PRAGMA table_info(events)", "SELECT name FROM pragma_table_info('events')"])
def test_schema_can_be_read(folder: Path, query: str) -> None:
    assert {"name": "seq"}.items() <= found(folder, query)[1].items()


def test_query_plan_can_be_read(folder: Path) -> None:
    assert "SCAN events" in ask(folder, "EXPLAIN QUERY PLAN SELECT * FROM events").out


def test_query_runs_while_another_process_writes(folder: Path) -> None:
    with connected(folder / "podledger.db") as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert found(folder, "SELECT count(*) AS n FROM events") == [{"n": 2}]
        writer.execute("ROLLBACK")


# Refusals

WRITES = [
    "DELETE FROM events",
    "INSERT INTO consumers SELECT * FROM consumers",
    "UPDATE ledgers SET head_seq = 0",
    "REPLACE INTO pods SELECT * FROM pods",
    "DROP VIEW anomalies",
    "DROP TABLE events",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "CREATE TEMP VIEW x AS SELECT 1",
    "CREATE VIRTUAL TABLE x USING fts5(a)",
    "CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END",
    "ALTER TABLE events ADD COLUMN x",
    "UPDATE sqlite_master SET sql = ''",
    "DELETE FROM sqlite_master",
    "VACUUM",
    "VACUUM INTO 'stolen.db'",
    "REINDEX",
    "ANALYZE",
    "ATTACH 'other.db' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH main",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "SAVEPOINT s",
    "PRAGMA query_only = 0",
    "PRAGMA writable_schema = 1",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA user_version = 7",
    "PRAGMA application_id = 7",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA hard_heap_limit = 0",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA temp_store_directory = '/'",
    "PRAGMA incremental_vacuum",
    "PRAGMA optimize",
    "SELECT * FROM pragma_journal_mode('delete')",
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('x')",
    "SELECT writefile('x', 'y')",
    "SELECT readfile('/etc/passwd')",
    "WITH x AS (SELECT 1) DELETE FROM events",
    "EXPLAIN DELETE FROM events",
    "SELECT 1; DELETE FROM events",
    "SELECT 1; SELECT 2",
    "",
    "-- nothing",
    "SELEC 1",
    "SELECT nope FROM events",
    "SELECT ?",
]


@pytest.mark.parametrize("query", WRITES)
def test_other_statements_are_refused_in_one_line(folder: Path, query: str) -> None:
    before = content(folder)
    done = ask(folder, query)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("podledger: ")
    assert done.err.count("\n") == 1
    assert content(folder) == before


def content(folder: Path) -> tuple[list[str], list[str]]:
    with sqlite3.connect(f"file:{folder / 'podledger.db'}?mode=ro", uri=True) as reader:
        dump = list(reader.iterdump())
    reader.close()
    return dump, sorted(path.name for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm")))


def test_read_only_file_is_read(folder: Path) -> None:
    with connected(folder / "podledger.db") as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    (folder / "podledger.db").chmod(0o400)
    assert found(folder, "SELECT count(*) AS n FROM events") == [{"n": 2}]


def test_file_that_is_no_database_is_refused(folder: Path) -> None:
    (folder / "other.db").write_bytes(os.urandom(4096))
    podledger("sql", "SELECT 1", "--db", "other.db", folder=folder, status=1)
    podledger("sql", "SELECT 1", "--db", "none.db", folder=folder, status=1)
    assert not (folder / "none.db").exists()


# Limits


@pytest.mark.parametrize(
    "query",
    [
        ENDLESS + "max(x) FROM n",
        ENDLESS + "count(DISTINCT randomblob(64)) FROM n",
        ENDLESS + "x FROM n WHERE x < 0",
        "SELECT count(*) FROM " + ", ".join(f"sqlite_master AS m{number}" for number in range(8)),
    ],
)
def test_endless_query_is_stopped_in_time(folder: Path, query: str) -> None:
    began = time.monotonic()
    done = ask(folder, query, "--timeout", "0.5")
    assert (done.status, done.out) == (1, "")
    assert "stopped after 0.5 s" in done.err
    assert time.monotonic() - began < 10


def test_rows_above_the_limit_are_cut_with_a_notice(folder: Path) -> None:
    done = ask(folder, ENDLESS + "x FROM n", "--limit", "3", "--json")
    assert (done.status, done.json()) == (0, [{"x": 1}, {"x": 2}, {"x": 3}])
    assert "only 3 rows shown" in done.err


def test_rows_at_the_limit_are_not_cut(folder: Path) -> None:
    assert ask(folder, "SELECT seq FROM events", "--limit", "2").err == ""


@pytest.mark.parametrize(
    "query",
    [
        "SELECT zeroblob(1000000000)",
        "SELECT randomblob(100000000)",
        ENDLESS + "group_concat(randomblob(10000)) FROM n",
        "SELECT " + ", ".join(["randomblob(16000000)"] * 40),
    ],
)
def test_query_that_takes_too_much_memory_fails(folder: Path, query: str) -> None:
    done = ask_apart(folder, query, "--timeout", "2")
    assert (done.status, done.out) == (1, "")
    assert "larger than" in done.err or "memory" in done.err or "stopped after" in done.err


def test_query_stuck_in_one_function_is_abandoned(folder: Path) -> None:
    slow = "SELECT instr(hex(zeroblob(8000000)), hex(zeroblob(2000000)) || '1')"
    began = time.monotonic()
    done = ask_apart(folder, slow, "--timeout", "0.5")
    assert (done.status, "stopped after 0.5 s" in done.err) == (1, True)
    assert time.monotonic() - began < 20


def test_large_result_is_cut_with_a_notice(folder: Path) -> None:
    done = ask_apart(folder, ENDLESS + "hex(zeroblob(2000000)) AS h FROM n", "--json")
    assert done.status == 0
    assert 0 < len(json.loads(done.out)) <= 8
    assert "the answer is larger than 32 MiB" in done.err


def test_csv_and_json_together_are_refused(folder: Path) -> None:
    assert ask(folder, "SELECT 1", "--json", "--csv").status == 2


def test_new_entries_are_visible_at_once(folder: Path) -> None:
    ledger_of(folder / "podledger.db", turned("ada"))
    assert found(folder, "SELECT max(seq) AS head FROM event_log") == [{"head": 3}]
