"""Test the migrations: they alone make the schema, it is what `tables` describes, and a failure leaves nothing."""

from __future__ import annotations

import ast
import re
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from podledger.core.errors import PodledgerError
from podledger.ledger import Ledger
from podledger.store import schema
from podledger.store.schema import SCHEMA_HEAD, downgrade_to, migrations_folder, prepare, upgrade_to
from podledger.store.sqlite.files import schema_of
from podledger.store.tables import metadata
from tests.given import OWNER, delegated, spawned, turned
from tests.support import TRIGGERS, VIEWS, connected, rows_of

VERSIONS = migrations_folder() / "versions"
HELPER_VIEWS = ("tenure_parents", "scope_rules")
"""The views that only other views read; docs/sql.md describes the rest."""

REVISIONS = sorted(re.match(r"\d{4}", path.name)[0] for path in VERSIONS.glob("[0-9]*.py"))  # type: ignore[index]


@pytest.fixture
def connection() -> Iterator[Connection]:
    with create_engine("sqlite://", poolclass=StaticPool).connect() as connection:
        yield connection


def described() -> dict[str, str]:
    """Return the SQL of the tables and indexes that `tables` describes."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        metadata.create_all(connection)
        found = schema_of(connection)
    engine.dispose()
    return found


def folded(found: dict[str, str]) -> dict[str, str]:
    """Return the tables and indexes without insignificant white space, and without Alembic's own table."""
    return {
        name: " ".join(sql.replace(")", " ) ").replace("(", " ( ").split())
        for name, sql in found.items()
        if name.startswith(("table ", "index ")) and name != "table alembic_version"
    }


def script() -> ScriptDirectory:
    return ScriptDirectory(str(migrations_folder()))


def test_head_revision_is_the_one_the_package_expects() -> None:
    assert script().get_heads() == [SCHEMA_HEAD] == REVISIONS[-1:]


def test_revisions_are_numbered_in_one_line() -> None:
    revisions = list(script().walk_revisions())
    assert [revision.revision for revision in revisions] == REVISIONS[::-1]
    assert [revision.down_revision for revision in revisions] == [*REVISIONS[-2::-1], None]
    assert [f"{number:04}" for number in range(1, len(REVISIONS) + 1)] == REVISIONS


def test_migrations_make_what_tables_describes(connection: Connection) -> None:
    upgrade_to(connection)
    assert folded(schema_of(connection)) == folded(described())
    others = {name for name in schema_of(connection) if name.startswith(("trigger ", "view "))}
    assert others == {*(f"trigger {name}" for name in TRIGGERS), *(f"view {name}" for name in (*VIEWS, *HELPER_VIEWS))}


def test_alembic_finds_no_drift(connection: Connection) -> None:
    upgrade_to(connection)
    assert compare_metadata(MigrationContext.configure(connection), metadata) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_upgrade_downgrade_upgrade_makes_the_same(revision: str, connection: Connection) -> None:
    upgrade_to(connection, revision)
    made = schema_of(connection)
    before = REVISIONS[REVISIONS.index(revision) - 1] if revision != REVISIONS[0] else "base"
    downgrade_to(connection, before)
    upgrade_to(connection, revision)
    assert schema_of(connection) == made
    downgrade_to(connection, "base")
    assert set(schema_of(connection)) == {"table alembic_version"}


def test_upgrading_twice_changes_nothing(connection: Connection) -> None:
    upgrade_to(connection)
    made = schema_of(connection)
    upgrade_to(connection)
    assert schema_of(connection) == made


@pytest.mark.parametrize("view", [*VIEWS, *HELPER_VIEWS])
def test_stored_view_is_readable(view: str, connection: Connection) -> None:
    upgrade_to(connection)
    first, comment, *rest = schema_of(connection)[f"view {view}"].split("\n")
    assert first == f"CREATE VIEW {view} AS"
    assert comment.startswith("-- ")
    assert max(map(len, rest)) <= 120
    assert not [line for line in rest if re.search(r"\{\w+\}", line)], "a fragment is missing"


@pytest.mark.parametrize("path", sorted(VERSIONS.glob("[0-9]*.py")), ids=lambda path: path.name)
def test_migration_imports_nothing_of_podledger(path: Path) -> None:
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    allowed = {"alembic", "sqlalchemy", *sys.stdlib_module_names}
    assert {str(module).split(".")[0] for module in modules} <= allowed
    assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", path.name)


def test_every_primary_key_begins_with_the_ledger() -> None:
    for table in metadata.tables.values():
        first = next(iter(table.primary_key))
        assert first.name == ("name" if table.name == "ledgers" else "ledger")
        assert first is next(iter(table.columns))


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_every_table_is_strict(table: str, connection: Connection) -> None:
    upgrade_to(connection)
    rows = connection.exec_driver_sql("SELECT strict FROM pragma_table_list WHERE name = ?", (table,)).all()
    assert [row[0] for row in rows] == [1]


# A migration that fails half way


def add_failing_migration(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Copy the migrations to `folder` and add one that makes a table and then fails."""
    shutil.copytree(migrations_folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9000_fails.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision, branch_labels, depends_on = '9000', '{SCHEMA_HEAD}', None, None\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (way)')\n"
        "    op.execute('INSERT INTO half VALUES (1)')\n"
        "    op.execute('CREATE TABLE half (again)')\n"
    )
    patch.setattr(schema, "migrations_folder", lambda: folder)
    patch.setattr(schema, "SCHEMA_HEAD", "9000")
    return folder / "versions" / "9000_fails.py"


def made(path: Path) -> set[str]:
    with connected(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_failed_creation_leaves_the_database_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_failing_migration(tmp_path / "migrations", monkeypatch)
    with pytest.raises(PodledgerError):
        prepare(tmp_path / "l.db", create=True)
    assert made(tmp_path / "l.db") == set()


async def test_failed_upgrade_leaves_the_old_ledger_whole(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.append_many([spawned("p"), delegated("q"), turned("p")])
    before = made(path), rows_of(path, "events", "tenures", "ledgers")
    with pytest.MonkeyPatch.context() as patch:
        add_failing_migration(tmp_path / "migrations", patch)
        with pytest.raises(PodledgerError):
            async with Ledger.open(path, OWNER):
                pass
    assert (made(path), rows_of(path, "events", "tenures", "ledgers")) == before
    async with Ledger.open(path, OWNER) as ledger:
        assert (await ledger.verify()).ok


def test_upgrade_succeeds_once_the_migration_is_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, broken = tmp_path / "l.db", add_failing_migration(tmp_path / "migrations", monkeypatch)
    with pytest.raises(PodledgerError):
        prepare(path, create=True)
    broken.write_text(broken.read_text().replace("CREATE TABLE half (again)", "SELECT 1"))
    shutil.rmtree(broken.parent / "__pycache__", ignore_errors=True)
    prepare(path, create=True)
    assert "half" in made(path)


# Concurrent upgrades


def test_many_threads_can_create_one_database(tmp_path: Path) -> None:
    path, failures = tmp_path / "l.db", []

    def open_it() -> None:
        try:
            prepare(path, create=True)
        except BaseException as error:  # noqa: BLE001 - a failure in a thread must fail the test
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA_HEAD,)]
    connection.close()
