"""The certificate: whatever one place of the file is changed, `verify` finds it, or the ledger does not open."""

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

from podledger.core.errors import LedgerNotFoundError, PodledgerError
from podledger.core.events import Sender
from podledger.integrity import verify
from podledger.integrity.verify import expected_schema
from podledger.ledger import Ledger
from podledger.store import log
from podledger.store.connections import translated
from podledger.store.expected_rows import Problem
from podledger.store.log import Rejection
from tests.support import (
    OWNER,
    TRIGGERS,
    Bench,
    connected,
    delegated,
    fresh_ledger,
    new_database,
    reclaimed,
    spawned,
    stamped,
    stopped,
    turned,
    writes,
)

Change = Callable[[sqlite3.Connection], object]
TABLES = (*("alembic_version", "ledgers", "events", "rejected", "tenures", "grants", "pods", "outbox", "consumers"),)
SENDER = Sender(17, 0, 0)
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with rows of every sort in every table, at rest in one file."""
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
        await ledger.update_outbox_item(sent._replace(status="sent", attempts=1, settled_us=5))


def with_triggers_aside(connection: sqlite3.Connection, change: Change) -> None:
    """Make a change that the triggers would refuse; they are there again afterwards."""
    triggers = as_made(connection)
    for name in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    change(connection)
    for trigger in triggers.values():
        connection.execute(trigger)


def as_made(connection: sqlite3.Connection) -> dict[str, str]:
    """The triggers as they stand in the file, to the letter."""
    return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall())


def tampered(whole: Path, to: Path, change: Change) -> Path:
    """A copy of the database with one change."""
    shutil.copy(whole, to)
    with connected(to) as connection:
        with_triggers_aside(connection, change)
    return to


async def problems_of(path: Path) -> list[str]:
    """What is wrong with the database's only ledger."""
    try:
        async with Ledger.open(path) as ledger:
            certificate = await ledger.verify()
    except PodledgerError as error:
        return [f"{type(error).__name__}: {error.message}"]
    assert certificate.ok == (not certificate.problems)
    return [f"{problem.check}: {problem.detail}" for problem in certificate.problems]


class Copy:
    """A copy of a database in memory, changed and put back as often as one likes."""

    def __init__(self, content: bytes) -> None:
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.raw.deserialize(content)
        self.connection = create_engine("sqlite://", creator=lambda: self.raw, poolclass=StaticPool).connect()

    def problems(self, change: Change | None = None) -> list[str]:
        """What is wrong, after a change if one is given."""
        try:
            with translated(Path("copy")):
                self.raw.execute("BEGIN")
                if change:
                    with_triggers_aside(self.raw, change)
                return [problem.detail for problem in verify.verify(self.connection, OWNER).problems]
        except PodledgerError as error:
            return [error.message]
        finally:
            self.raw.rollback()


def unnoticed(whole: Path, folder: Path, table: str, changes: Iterable[tuple[str, Change]]) -> tuple[int, list[str]]:
    """How many changes were tried, and those that nobody found."""
    copy = Copy(whole.read_bytes())
    at_opening = table in (
        "alembic_version",
        "ledgers",
    )  # what `verify` sees of these depends on what opening made of them
    tried, missed = 0, []
    for name, change in changes:
        try:
            if at_opening:
                found = asyncio.run(problems_of(tampered(whole, folder / "tampered.db", change)))
            else:
                found = copy.problems(change)
        except sqlite3.IntegrityError:
            continue  # the table itself refuses such a value
        except Exception as error:  # noqa: BLE001 - whatever it is: a failure without a name is no finding
            missed.append(f"{name} ({error!r})")
            found = ["nothing that has a name"]
        tried += 1
        if not found:
            missed.append(name)
    return tried, missed


def test_an_untouched_ledger_is_whole(whole: Path, tmp_path: Path) -> None:
    assert asyncio.run(problems_of(tampered(whole, tmp_path / "l.db", lambda _: None))) == []


def other_values(value: Any) -> list[Any]:
    """What a cell could hold instead."""
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
    """Each row removed, and each doubled under another key."""
    with connected(path) as connection:
        rows = connection.execute(f"SELECT rowid, * FROM {table}").fetchall()
        info = connection.execute(f"PRAGMA table_info({table})").fetchall()
    for rowid, *row in rows:
        yield f"{table}: row {rowid} removed", _delete(table, rowid)
        for (at, column, *_, key), value in zip(info, row, strict=True):
            others = [0, -1, value + 1, 999, LOWEST, HIGHEST] if isinstance(value, int) else [f"{value}x", ""]
            for other in others if key else []:
                doubled = [*row[:at], other, *row[at + 1 :]]
                yield f"{table}: row {rowid} doubled with {column} = {other!r}", _insert(table, doubled)


def _delete(table: str, rowid: int) -> Change:
    return lambda connection: connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))


def _insert(table: str, row: list[Any]) -> Change:
    return lambda connection: connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


@pytest.mark.parametrize("table", TABLES)
def test_any_row_removed_or_doubled_is_found(table: str, whole: Path, tmp_path: Path) -> None:
    tried, missed = unnoticed(whole, tmp_path, table, row_changes(whole, table))
    assert (tried > 0, missed) == (True, [])


def test_two_rows_swapped_are_found(whole: Path, tmp_path: Path) -> None:
    swap = "UPDATE events SET seq = CASE seq WHEN 3 THEN -4 WHEN 4 THEN -3 END WHERE seq IN (3, 4)"

    def change(connection: sqlite3.Connection) -> None:
        connection.execute(swap)
        connection.execute("UPDATE events SET seq = -seq WHERE seq < 0")

    assert asyncio.run(problems_of(tampered(whole, tmp_path / "l.db", change)))


def schema_changes(path: Path) -> Iterator[tuple[str, Change]]:
    with connected(path) as connection:
        made = connection.execute("SELECT type, name FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        triggers = as_made(connection)
    for sort, name in made:
        yield f"{sort} {name} dropped", _run(f"DROP {sort} {name}")
    for name, trigger in triggers.items():
        idle = trigger.replace("BEGIN\n", "BEGIN\n    SELECT 1 WHERE 0; --\n")
        yield f"trigger {name} altered", _run(f"DROP TRIGGER {name}", idle)
    for table in TABLES:
        yield f"{table} has one column more", _run(f"ALTER TABLE {table} ADD COLUMN extra TEXT")
        yield f"{table} has a trigger more", _run(f"CREATE TRIGGER extra AFTER INSERT ON {table} BEGIN SELECT 1; END")
        yield f"{table} has an index more", _run(f"CREATE INDEX extra ON {table} (1)")
        yield f"{table} has another name", _run(f"ALTER TABLE {table} RENAME TO other")
    yield "a table more", _run("CREATE TABLE extra (x)")
    yield "a view more", _run("CREATE VIEW extra AS SELECT 1")


def _run(*statements: str) -> Change:
    def change(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA legacy_alter_table = ON")  # which lets a table go from under the views that read it
        for statement in statements:
            connection.execute(statement)

    return change


def test_any_change_of_the_schema_is_found(whole: Path, tmp_path: Path) -> None:
    """Here the triggers are not put back: their loss is among what must be found."""
    missed = []
    for name, change in schema_changes(whole):
        path = Path(shutil.copy(whole, tmp_path / "l.db"))
        with connected(path) as connection:
            change(connection)
        try:
            if not asyncio.run(problems_of(path)):
                missed.append(name)
        except Exception as error:  # noqa: BLE001 - as above
            missed.append(f"{name} ({error!r})")
    assert missed == []


@pytest.mark.parametrize("offset", [0, 1, 5, -1])
def test_a_byte_flipped_in_a_payload_on_disk_is_found(offset: int, whole: Path, tmp_path: Path) -> None:
    content = bytearray(whole.read_bytes())
    payload = b'{"kind":"turn_ended","pod_name":"nobody"}'
    at = content.index(payload) + offset % len(payload)
    content[at] ^= 1
    path = tmp_path / "l.db"
    path.write_bytes(content)
    assert asyncio.run(problems_of(path))


def contents(raw: sqlite3.Connection) -> list[object]:
    """All that a database says: its rows, its schema, and the two marks in its header."""
    marks = [raw.execute(f"PRAGMA {mark}").fetchone() for mark in ("user_version", "application_id")]
    return [*raw.iterdump(), *marks]


@settings(max_examples=150)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_byte_flipped_on_disk_is_found_or_says_nothing(whole: Path, place: float, flip: int) -> None:
    """Much of a file is empty; what is not, is checked."""
    content = bytearray(whole.read_bytes())
    content[int(len(content) * place)] ^= flip
    copy, untouched = Copy(bytes(content)), Copy(whole.read_bytes())
    assert copy.problems() or contents(copy.raw) == contents(untouched.raw)


@pytest.mark.parametrize("text", [b"CREATE TABLE pods", b"CREATE TRIGGER events_no_update", b"PRIMARY KEY (ledger"])
def test_a_schema_that_is_no_text_is_damage(text: bytes, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(whole.read_bytes().replace(text, text[:3] + b"\xce" + text[4:]))
    assert asyncio.run(problems_of(path))


@pytest.mark.parametrize("mark", ["user_version", "application_id"])
def test_a_changed_mark_in_the_header_is_found(mark: str, whole: Path, tmp_path: Path) -> None:
    assert asyncio.run(problems_of(tampered(whole, tmp_path / "l.db", _run(f"PRAGMA {mark} = 77"))))


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
def test_a_file_cut_short_is_found(part: float, whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    path = tmp_path / "l.db"
    path.write_bytes(content[: int(len(content) * part)])
    assert asyncio.run(problems_of(path))


def test_a_page_of_nothing_is_found(whole: Path, tmp_path: Path) -> None:
    size, path = 4096, tmp_path / "l.db"
    pages = len(whole.read_bytes()) // size
    for page in range(pages):
        content = bytearray(whole.read_bytes())
        content[page * size : (page + 1) * size] = bytes(size)
        path.write_bytes(content)
        assert asyncio.run(problems_of(path)), f"page {page + 1}"


# What a problem says


async def altered(ledger: Ledger, *statements: str) -> list[Problem]:
    with connected(ledger.database.path) as connection:
        with_triggers_aside(connection, _run(*statements))
    certificate = await ledger.verify()
    assert not certificate.ok
    assert certificate.as_json()["ok"] is False
    return list(certificate.problems)


async def test_a_problem_names_its_check_and_entry() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), stopped("p")])
        problems = await altered(ledger, "UPDATE events SET payload = replace(payload, 'p', 'P') WHERE seq = 2")
        assert {(problem.check, problem.seq) for problem in problems} >= {("chain", 2)}
        assert all(problem.detail for problem in problems)


async def test_a_removed_entry_is_a_gap_in_the_numbering() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), stopped("p")])
        problems = await altered(ledger, "DELETE FROM events WHERE seq = 2")
        assert {(problem.check, problem.seq) for problem in problems} >= {("numbering", 3), ("chain", 3)}


async def test_a_cut_end_of_the_log_is_missed_by_the_head() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), turned("p")])
        problems = await altered(ledger, "DELETE FROM events WHERE seq = 3")
        assert [problem.check for problem in problems] == ["head"]


async def test_an_outcome_that_the_rules_would_not_give_is_named() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p")])
        problems = await altered(ledger, "UPDATE events SET outcome = 'late' WHERE seq = 2")
        assert {(problem.check, problem.seq) for problem in problems} == {("chain", 2), ("outcome", 2)}


async def test_a_certificate_lists_so_many_problems_and_says_that_there_are_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "MAX_PROBLEMS", 3)
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 9)
        problems = await altered(ledger, "UPDATE events SET payload = 'x'")
        assert len(problems) == 4
        assert problems[-1].check == "limit"


async def test_a_whole_ledger_s_certificate() -> None:
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


async def test_it_sees_one_moment_while_others_append() -> None:
    async with fresh_ledger() as ledger:
        appending = [asyncio.create_task(ledger.append(turned(f"p{number}"))) for number in range(300)]
        certificates = await asyncio.gather(*(ledger.verify() for _ in range(5)))
        await asyncio.gather(*appending)
        assert [certificate.problems for certificate in certificates] == [()] * 5


async def test_it_writes_nothing(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.append_many([spawned("p"), turned("p")])
    path.chmod(0o400)
    before = path.read_bytes()
    async with Ledger.open(path) as ledger:
        assert (await ledger.verify()).ok
    assert path.read_bytes() == before


def test_the_ledgers_of_one_database_are_verified_one_by_one() -> None:
    bench = Bench([spawned("p")])
    log.make_ledger(bench.connection, "other", 1)
    bench.connection.exec_driver_sql("UPDATE ledgers SET created_us = 5 WHERE name = 'other'")
    assert bench.verify().ok
    assert [problem.check for problem in verify.verify(bench.connection, "other").problems] == ["head"]
    with pytest.raises(LedgerNotFoundError):
        verify.verify(bench.connection, "nobody")


def test_the_schema_expected_names_every_table_and_trigger() -> None:
    expected = expected_schema()
    assert {f"trigger {name}" for name in TRIGGERS} <= expected.keys()
    assert {f"table {table}" for table in TABLES} <= expected.keys()
