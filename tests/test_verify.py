"""Verification: after a change of any one place in the file, `verify` reports it or the ledger does not open."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from podledger.core.entries import Sender
from podledger.core.errors import LedgerNotFoundError, PodledgerError
from podledger.core.problem import Problem
from podledger.integrity import verify
from podledger.integrity.schema import expected_schema
from podledger.ledger import Ledger
from podledger.store import log
from podledger.store.coverage import WHOLE_LOG
from podledger.store.log import Rejection
from podledger.store.sqlite.errors import translated
from tests.given import OWNER, delegated, reclaimed, spawned, stamped, stopped, turned, writes
from tests.support import TRIGGERS, Bench, change_outbox, connected, fresh_ledger, new_database

Change = Callable[[sqlite3.Connection], object]
TABLES = (
    *(
        "alembic_version",
        "ledgers",
        "events",
        "rejected",
        "tenures",
        "grants",
        "pods",
        "streams",
        "outbox",
        "consumers",
    ),
)
SENDER = Sender(17, 0, 0)
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with rows of every kind in every table, closed and in one file."""
    path = new_database(tmp_path_factory.mktemp("verify") / "whole.db")
    asyncio.run(_fill(path))
    with connected(path) as connection:
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    return path


async def _fill(path: Path) -> None:
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.configure(parent_socket="/run/parent", mirror="/tmp/mirror.json")
        scope = (*writes("/srv"), *writes("/etc", recursive=False))
        await ledger.append_many([spawned("p", scope=scope), stamped(delegated("q", "/run/q", scope, "p"), 7, 5)])
        await ledger.append_many([turned("p"), stamped(turned("p"), 5), stamped(turned("q"), None, 7)])
        await ledger.append_many([reclaimed("p"), stopped("p"), stamped(stopped("q"), 7), turned("nobody")])
        await ledger.append_many([delegated("open", "/run/open", scope), stamped(turned("heard"), 3)])
        await ledger.commits.append([], [Rejection(b"\xff", "not UTF-8", SENDER), Rejection(b"{}", "no event", None)])
        for consumer in ("agent", "other"):
            await ledger.acknowledge(2, consumer)
        sent, *_ = await ledger.outbox_items()
        await change_outbox(ledger, sent._replace(status="sent", attempts=1, settled_us=5))


def without_triggers(connection: sqlite3.Connection, change: Change) -> None:
    """Make a change that the triggers would refuse, and create the triggers again."""
    triggers = triggers_of(connection)
    for name in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    change(connection)
    for trigger in triggers.values():
        connection.execute(trigger)


def triggers_of(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the SQL of the triggers in the file."""
    return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall())


def tampered(whole: Path, to: Path, change: Change) -> Path:
    """Copy the database and make one change in the copy."""
    shutil.copy(whole, to)
    with connected(to) as connection:
        without_triggers(connection, change)
    return to


async def problems_of(path: Path) -> list[str]:
    """Return the problems of the database's only ledger."""
    try:
        async with Ledger.open(path) as ledger:
            result = await ledger.verify()
    except PodledgerError as error:
        return [f"{type(error).__name__}: {error.message}"]
    assert result.ok == (not result.problems)
    return [f"{problem.check}: {problem.detail}" for problem in result.problems]


class Copy:
    """A copy of a database in memory, which can be changed and rolled back many times."""

    def __init__(self, content: bytes) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.raw.deserialize(content)
        self.connection = create_engine("sqlite://", creator=lambda: self.raw, poolclass=StaticPool).connect()

    def problems(self, change: Change | None = None) -> list[str]:
        """Return the problems, after a change if one is given."""
        try:
            with translated(Path("copy")):
                self.raw.execute("BEGIN")
                if change:
                    without_triggers(self.raw, change)
                return [problem.detail for problem in verify.verify(self.connection, OWNER).problems]
        except PodledgerError as error:
            return [error.message]
        finally:
            self.raw.rollback()


def unnoticed(whole: Path, folder: Path, table: str, changes: Iterable[tuple[str, Change]]) -> tuple[int, list[str]]:
    """Return how many changes were tried, and those that were not found."""
    copy = Copy(whole.read_bytes())
    at_opening = table in (
        "alembic_version",
        "ledgers",
    )  # opening the ledger reads these tables before `verify` does
    tried, missed = 0, []
    for name, change in changes:
        try:
            if at_opening:
                found = asyncio.run(problems_of(tampered(whole, folder / "tampered.db", change)))
            else:
                found = copy.problems(change)
        except sqlite3.IntegrityError:
            continue  # the table itself refuses such a value
        except Exception as error:  # noqa: BLE001 - an unexpected exception does not count as found
            missed.append(f"{name} ({error!r})")
            found = [repr(error)]
        tried += 1
        if not found:
            missed.append(name)
    return tried, missed


def test_untouched_ledger_verifies(whole: Path, tmp_path: Path) -> None:
    assert asyncio.run(problems_of(tampered(whole, tmp_path / "l.db", lambda _: None))) == []


def other_values(value: Any) -> list[Any]:
    """Return other values for a cell."""
    match value:
        case None:
            return ["", "x", 0, 1]
        case int():
            return [value + 1, value - 1, None]
        case bytes():
            return [value + b"x", value[:-1], b""]
        case _:
            return [f"{value}x", value[:-1], "", None, value.upper(), f" {value}"]


def cell_changes(path: Path, table: str) -> Iterator[tuple[str, Change]]:
    with connected(path) as connection:
        rows = connection.execute(f"SELECT rowid, * FROM {table}").fetchall()
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    seen = set()
    for rowid, *row in rows:
        for column, value in zip(columns, row, strict=True):
            if (column, value is None) in seen:
                continue
            seen.add((column, value is None))
            for other in other_values(value):
                if other != value:
                    yield f"{table}.{column} of row {rowid}: {value!r} to {other!r}", _set(table, column, rowid, other)


def _set(table: str, column: str, rowid: int, value: Any) -> Change:
    return lambda connection: connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))


@pytest.mark.parametrize("table", TABLES)
def test_any_changed_cell_is_found(table: str, whole: Path, tmp_path: Path) -> None:
    tried, missed = unnoticed(whole, tmp_path, table, cell_changes(whole, table))
    assert (tried > 0, missed) == (True, [])


def row_changes(path: Path, table: str) -> Iterator[tuple[str, Change]]:
    """Yield each row removed, and each row copied under another key."""
    with connected(path) as connection:
        rows = connection.execute(f"SELECT rowid, * FROM {table}").fetchall()
        info = connection.execute(f"PRAGMA table_info({table})").fetchall()
    for rowid, *row in rows:
        yield f"{table}: row {rowid} removed", _delete(table, rowid)
        for (at, column, *_, key), value in zip(info, row, strict=True):
            others = [0, -1, value + 1, 999, LOWEST, HIGHEST] if isinstance(value, int) else [f"{value}x", ""]
            for other in others if key else []:
                copied = [*row[:at], other, *row[at + 1 :]]
                yield f"{table}: row {rowid} copied with {column} = {other!r}", _insert(table, copied)


def _delete(table: str, rowid: int) -> Change:
    return lambda connection: connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))


def _insert(table: str, row: list[Any]) -> Change:
    return lambda connection: connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


@pytest.mark.parametrize("table", TABLES)
def test_any_removed_or_copied_row_is_found(table: str, whole: Path, tmp_path: Path) -> None:
    tried, missed = unnoticed(whole, tmp_path, table, row_changes(whole, table))
    assert (tried > 0, missed) == (True, [])


def test_two_swapped_rows_are_found(whole: Path, tmp_path: Path) -> None:
    swap = "UPDATE events SET seq = CASE seq WHEN 3 THEN -4 WHEN 4 THEN -3 END WHERE seq IN (3, 4)"

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(swap)
        connection.execute("UPDATE events SET seq = -seq WHERE seq < 0")

    assert asyncio.run(problems_of(tampered(whole, tmp_path / "l.db", change)))


def schema_changes(path: Path) -> Iterator[tuple[str, Change]]:
    with connected(path) as connection:
        made = connection.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        triggers = triggers_of(connection)
    for kind, name in made:
        yield f"{kind} {name} dropped", _run(f"DROP {kind} {name}")
    for name, trigger in triggers.items():
        idle = trigger.replace("BEGIN\n", "BEGIN\n    SELECT 1 WHERE 0; --\n")
        yield f"trigger {name} altered", _run(f"DROP TRIGGER {name}", idle)
    for table in TABLES:
        yield f"{table} has an additional column", _run(f"ALTER TABLE {table} ADD COLUMN extra TEXT")
        yield (
            f"{table} has an additional trigger",
            _run(f"CREATE TRIGGER extra AFTER INSERT ON {table} BEGIN SELECT 1; END"),
        )
        yield f"{table} has an additional index", _run(f"CREATE INDEX extra ON {table} (1)")
        yield f"{table} has another name", _run(f"ALTER TABLE {table} RENAME TO other")
    yield "an additional table", _run("CREATE TABLE extra (x)")
    yield "an additional view", _run("CREATE VIEW extra AS SELECT 1")


def _run(*statements: str) -> Change:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA legacy_alter_table = ON")  # so that a table can be dropped although views read it
        for statement in statements:
            connection.execute(statement)

    return change


def test_any_change_of_the_schema_is_found(whole: Path, tmp_path: Path) -> None:
    """Here the triggers are not created again: `verify` must find that they are missing."""
    missed = []
    for name, change in schema_changes(whole):
        path = Path(shutil.copy(whole, tmp_path / "l.db"))
        with connected(path) as connection:
            change(connection)
        try:
            if not asyncio.run(problems_of(path)):
                missed.append(name)
        except Exception as error:  # noqa: BLE001 - as in `unnoticed`
            missed.append(f"{name} ({error!r})")
    assert missed == []


@pytest.mark.parametrize("offset", [0, 1, 5, -1])
def test_flipped_byte_in_a_payload_is_found(offset: int, whole: Path, tmp_path: Path) -> None:
    content = bytearray(whole.read_bytes())
    payload = b'{"kind":"turn_ended","pod_name":"nobody"}'
    at = content.index(payload) + offset % len(payload)
    content[at] ^= 1
    path = tmp_path / "l.db"
    path.write_bytes(content)
    assert asyncio.run(problems_of(path))


def contents(raw: sqlite3.Connection) -> list[object]:
    """Return a database's rows, schema, and the two numbers in its header that podledger uses."""
    marks = [raw.execute(f"PRAGMA {mark}").fetchone() for mark in ("user_version", "application_id")]
    return [*raw.iterdump(), *marks]


@settings(max_examples=150)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_flipped_byte_is_found_or_changes_nothing(whole: Path, place: float, flip: int) -> None:
    """Much of a file is unused space."""
    content = bytearray(whole.read_bytes())
    content[int(len(content) * place)] ^= flip
    copy, untouched = Copy(bytes(content)), Copy(whole.read_bytes())
    assert copy.problems() or contents(copy.raw) == contents(untouched.raw)


@pytest.mark.parametrize("text", [b"CREATE TABLE pods", b"CREATE TRIGGER events_no_update", b"PRIMARY KEY (ledger"])
def test_schema_that_is_not_utf8_is_damage(text: bytes, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(whole.read_bytes().replace(text, text[:3] + b"\xce" + text[4:]))
    assert asyncio.run(problems_of(path))


@pytest.mark.parametrize("field", ["user_version", "application_id"])
def test_changed_header_field_is_found(field: str, whole: Path, tmp_path: Path) -> None:
    assert asyncio.run(problems_of(tampered(whole, tmp_path / "l.db", _run(f"PRAGMA {field} = 77"))))


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
def test_truncated_file_is_found(part: float, whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    path = tmp_path / "l.db"
    path.write_bytes(content[: int(len(content) * part)])
    assert asyncio.run(problems_of(path))


def test_any_zeroed_page_is_found(whole: Path, tmp_path: Path) -> None:
    size, path = 4096, tmp_path / "l.db"
    pages = len(whole.read_bytes()) // size
    for page in range(pages):
        content = bytearray(whole.read_bytes())
        content[page * size : (page + 1) * size] = bytes(size)
        path.write_bytes(content)
        assert asyncio.run(problems_of(path)), f"page {page + 1}"


async def altered(ledger: Ledger, *statements: str) -> list[Problem]:
    """Change an open ledger from outside, and return the problems that `verify` finds."""
    with connected(ledger.database.path) as connection:
        without_triggers(connection, _run(*statements))
    result = await ledger.verify()
    assert not result.ok
    assert result.as_json()["ok"] is False
    return list(result.problems)


async def test_problem_names_its_check_and_entry() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), stopped("p")])
        problems = await altered(ledger, "UPDATE events SET payload = replace(payload, 'p', 'P') WHERE seq = 2")
        assert {(problem.check, problem.seq) for problem in problems} >= {("chain", 2)}
        assert all(problem.detail for problem in problems)


async def test_removed_entry_is_a_gap_in_the_numbering() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), stopped("p")])
        problems = await altered(ledger, "DELETE FROM events WHERE seq = 2")
        assert {(problem.check, problem.seq) for problem in problems} >= {("numbering", 3), ("chain", 3)}


async def test_truncated_log_contradicts_the_head() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), turned("p")])
        problems = await altered(ledger, "DELETE FROM events WHERE seq = 3")
        assert [problem.check for problem in problems] == ["head"]


async def test_outcome_against_the_rules_is_a_problem() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p")])
        problems = await altered(ledger, "UPDATE events SET outcome = 'late' WHERE seq = 2")
        assert {(problem.check, problem.seq) for problem in problems} == {("chain", 2), ("outcome", 2)}


async def test_list_of_problems_is_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "MAX_PROBLEMS", 3)
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 9)
        problems = await altered(ledger, "UPDATE events SET payload = 'x'")
        assert len(problems) == 4
        assert problems[-1].check == "limit"


async def test_result_of_a_good_ledger() -> None:
    async with fresh_ledger() as ledger:
        empty = await ledger.verify()
        assert (empty.ok, empty.events, empty.head_digest) == (True, 0, "0" * 64)
        last = (await ledger.append_many([spawned("p"), turned("p")]))[-1]
        assert (await ledger.verify()).as_json() == {
            "ok": True,
            "ledger": OWNER,
            "events": 2,
            "head_digest": last.digest,
            "problems": [],
        }


async def test_verify_reads_one_snapshot_during_appends() -> None:
    async with fresh_ledger() as ledger:
        appending = [asyncio.create_task(ledger.append(turned(f"p{number}"))) for number in range(300)]
        results = await asyncio.gather(*(ledger.verify() for _ in range(5)))
        await asyncio.gather(*appending)
        assert [result.problems for result in results] == [()] * 5


async def test_verify_writes_nothing(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.append_many([spawned("p"), turned("p")])
    path.chmod(0o400)
    before = path.read_bytes()
    async with Ledger.open(path) as ledger:
        assert (await ledger.verify()).ok
    assert path.read_bytes() == before


def test_ledgers_of_one_database_are_verified_separately() -> None:
    bench = Bench([spawned("p")])
    log.make_ledger(bench.connection, "other", 1)
    bench.connection.exec_driver_sql("UPDATE ledgers SET created_us = 5 WHERE name = 'other'")
    assert bench.verify().ok
    assert [problem.check for problem in verify.verify(bench.connection, "other").problems] == ["head"]
    with pytest.raises(LedgerNotFoundError):
        verify.verify(bench.connection, "nobody")


def test_expected_schema_names_every_table_and_trigger() -> None:
    expected = expected_schema(WHOLE_LOG.tables)
    assert {f"trigger {name}" for name in TRIGGERS} <= expected.keys()
    assert {f"table {table}" for table in TABLES} <= expected.keys()
