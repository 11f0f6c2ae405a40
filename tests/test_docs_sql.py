"""`docs/sql.md`: every column is told of, and every query answers what the page says, in Python and in the shell."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import troubled
from tests.cli import podledger
from tests.support import VIEWS, memory

PAGE = (Path(__file__).parent.parent / "docs" / "sql.md").read_text()
SHELL = shutil.which("sqlite3")
NO_SHELL = "the sqlite3 shell is not installed"


class Question(NamedTuple):
    """A worked query of the page, and the table that it says comes back."""

    title: str
    query: str
    table: list[list[str]]


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table, without the line under its head."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    return [row for row in rows if not set("".join(row)) <= {"-"} or not "".join(row)]


def questions() -> list[Question]:
    found = re.findall(r"^### ([^\n]+\?)\n.*?```sql\n(.*?)```\n\n((?:\|[^\n]*\n)+)", PAGE, re.DOTALL | re.MULTILINE)
    return [Question(title, query, cells(table)) for title, query, table in found]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of the incident."""
    path = tmp_path_factory.mktemp("incident") / "podledger.db"
    asyncio.run(troubled.record(path))
    return path


def test_there_are_ten_questions() -> None:
    assert len(questions()) == PAGE.count("```sql") == 10


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.title)
def test_a_query_answers_what_the_page_says(ledger: Path, question: Question) -> None:
    reader = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    cursor = reader.execute(question.query)
    names = [column[0] for column in cursor.description]
    rows = [["" if value is None else str(value) for value in row] for row in cursor]
    reader.close()
    assert [names, *rows] == question.table


@pytest.mark.skipif(SHELL is None, reason=NO_SHELL)
@pytest.mark.parametrize("question", questions(), ids=lambda question: question.title)
def test_a_query_typed_into_the_shell_answers_what_the_page_says(ledger: Path, question: Question) -> None:
    command = [str(SHELL), "-readonly", "-markdown", str(ledger)]
    done = subprocess.run(command, input=question.query, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    assert cells(done.stdout) == question.table


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.title)
def test_a_query_given_to_podledger_sql_finds_as_much(ledger: Path, question: Question) -> None:
    done = podledger("sql", question.query, "--json", folder=ledger.parent)
    assert (done.status, done.err) == (0, "")
    assert [list(row) for row in done.json()] == [question.table[0]] * len(question.table[1:])


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_a_view_is_told_of_and_no_other(view: str) -> None:
    section = re.split(r"^###? ", PAGE.split(f"### {view}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = section.split("| column | meaning |")[1].split("\n\n")[0]
    told = {name for row in cells(table) for name in re.findall(r"`(\w+)`", row[0])}
    with memory() as connection:
        columns = set(connection.exec_driver_sql(f"SELECT * FROM {view}").keys())
    assert told == columns


def test_every_kind_of_anomaly_is_told_of_and_happens_in_the_incident(ledger: Path) -> None:
    told = set(
        re.findall(r"`(\w+)`", PAGE.split("| what | meaning |")[1].split("\n\n")[0].replace("`pod_spawned`", ""))
    )
    reader = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    happened = {what for (what,) in reader.execute("SELECT DISTINCT what FROM anomalies")}
    reader.close()
    assert told == happened
