"""Test `docs/sql.md`: it describes every column, and every query returns the documented rows."""

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
from tests.runner import podledger
from tests.support import VIEWS, memory

PAGE = (Path(__file__).parent.parent / "docs" / "sql.md").read_text()
SHELL = shutil.which("sqlite3")
NO_SHELL = "the sqlite3 shell is not installed"


class Recipe(NamedTuple):
    """A query of the page under its heading, and the table that the page shows as its answer."""

    title: str
    query: str
    table: list[list[str]]


def cells(table: str) -> list[list[str]]:
    """Return the rows of a Markdown table, without the line under its head."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    return [row for row in rows if not set("".join(row)) <= {"-"} or not "".join(row)]


def recipes() -> list[Recipe]:
    """Return every query of the page that a table follows."""
    sections = re.findall(r"^#+ ([^\n]+)\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    found = [(title, re.search(r"```sql\n(.*?)```\n\n((?:\|[^\n]*\n)+)", text, re.DOTALL)) for title, text in sections]
    return [Recipe(title, match[1], cells(match[2])) for title, match in found if match]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the ledger of the incident."""
    path = tmp_path_factory.mktemp("incident") / "podledger.db"
    asyncio.run(troubled.record(path))
    return path


def test_every_query_has_its_answer() -> None:
    assert len(recipes()) == PAGE.count("```sql") == 11


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.title)
def test_query_answers_what_the_page_says(ledger: Path, recipe: Recipe) -> None:
    reader = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    cursor = reader.execute(recipe.query)
    names = [column[0] for column in cursor.description]
    rows = [["" if value is None else str(value) for value in row] for row in cursor]
    reader.close()
    assert [names, *rows] == recipe.table


@pytest.mark.skipif(SHELL is None, reason=NO_SHELL)
@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.title)
def test_query_in_the_shell_answers_what_the_page_says(ledger: Path, recipe: Recipe) -> None:
    command = [str(SHELL), "-readonly", "-markdown", str(ledger)]
    done = subprocess.run(command, input=recipe.query, capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    assert cells(done.stdout) == recipe.table


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.title)
def test_podledger_sql_finds_as_many_rows(ledger: Path, recipe: Recipe) -> None:
    done = podledger("sql", recipe.query, "--json", folder=ledger.parent, status=None)
    assert (done.status, done.err) == (0, "")
    assert [list(row) for row in done.json()] == [recipe.table[0]] * len(recipe.table[1:])


@pytest.mark.parametrize("view", VIEWS)
def test_page_describes_exactly_the_columns_of_a_view(view: str) -> None:
    section = re.split(r"^###? ", PAGE.split(f"### {view}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    table = section.split("| column | meaning |")[1].split("\n\n")[0]
    described = {name for row in cells(table) for name in re.findall(r"`(\w+)`", row[0])}
    with memory() as connection:
        columns = set(connection.exec_driver_sql(f"SELECT * FROM {view}").keys())
    assert described == columns


def test_page_describes_every_kind_of_anomaly(ledger: Path) -> None:
    table = PAGE.split("| what | meaning |")[1].split("\n\n")[0]
    described = {what for row in cells(table) for what in re.findall(r"`(\w+)`", row[0])}
    reader = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    happened = {what for (what,) in reader.execute("SELECT DISTINCT what FROM anomalies")}
    reader.close()
    assert described == happened | {"relative_path", "reused_number"}
