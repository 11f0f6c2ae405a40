"""Bundles: a part of a ledger that can be read and verified anywhere, and not written."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podledger import Entry, Ledger, PodSpawned, ScopeSubDelegated, ShutDown, TurnEnded
from podledger.archive.collect import collect
from podledger.archive.transfer import export_lines
from podledger.bundle.coverage import verifier
from podledger.bundle.request import BundleRequest
from podledger.bundle.scope import BundleRow, texts_digest
from podledger.bundle.write import BundleResult
from podledger.core.digest import payload_digest
from podledger.core.errors import DamagedError, InvalidMomentError, ReadOnlyError, StorageError, UsageError
from podledger.core.events import DELEGATIONS, LedgerEvent
from podledger.integrity.coverage import coverage_of
from tests.clocks import Clock
from tests.given import (
    OWNER,
    delegated,
    errored,
    incarnation,
    make_ledger,
    spawned,
    stamp,
    stamped,
    stopped,
    turned,
    writes,
)
from tests.runner import podledger, podledger_json, podledger_process
from tests.support import connected


def a_tree() -> list[LedgerEvent]:
    """Return two branches of pods with reports from each; the second report of `coder` never arrived."""
    return [
        spawned("planner", "/run/planner", writes("/srv")),
        spawned("scout", "/run/scout", writes("/tmp")),
        delegated("coder", "/run/coder", writes("/srv/app"), parent="planner"),
        delegated("mapper", "/run/mapper", writes("/tmp/map"), parent="scout"),
        stamped(turned("coder"), 7, sequence=1),
        errored("scout", "a secret"),
        stamped(errored("coder", "no space left"), 7, sequence=3),
        delegated("tester", "/run/tester", writes("/srv/app/t"), parent="coder"),
        turned("tester"),
        turned("planner"),
        stopped("mapper"),
        stamped(stopped("coder"), 7, sequence=4),
    ]


async def bundled(folder: Path, request: BundleRequest, events: list[LedgerEvent] | None = None) -> BundleResult:
    """Create the ledger `db` in a folder, and its bundle `b`."""
    await make_ledger(folder / "db", events=a_tree() if events is None else events)
    async with Ledger.open(folder / "db", clock=Clock()) as ledger:
        return await ledger.bundle(folder / "b", request)


async def entries(path: Path) -> list[Entry]:
    """Return the entries that the only ledger at `path` shows."""
    async with Ledger.open(path) as ledger:
        return [entry async for entry in ledger.entries()]


async def test_bundle_shows_subtree_in_span_and_its_delegations(tmp_path: Path) -> None:
    done = await bundled(tmp_path, BundleRequest("coder", 5, 9))
    log = await entries(tmp_path / "db")

    assert (done.scope.pods, done.scope.ancestry) == (frozenset({"coder", "tester"}), frozenset({"planner"}))
    assert [entry.seq for entry in await entries(tmp_path / "b")] == [1, 3, 5, 7, 8, 9]
    assert await entries(tmp_path / "b") == [log[seq - 1] for seq in (1, 3, 5, 7, 8, 9)]
    assert (done.entries, done.shown, done.head_digest) == (9, 6, log[8].digest)


async def test_withheld_payloads_are_not_in_the_file(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("coder", 5, 9))
    data = (tmp_path / "b").read_bytes()

    assert b"no space left" in data
    assert b"a secret" not in data
    assert b"/tmp/map" not in data


async def test_bundle_gives_the_answers_of_its_ledger(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("planner", 3, 11))
    async with Ledger.open(tmp_path / "db") as ledger, Ledger.open(tmp_path / "b") as bundle:
        for at in range(12):
            pods = [pod for pod in await ledger.pods(at) if pod.pod_name in ("planner", "coder", "tester")]
            assert await bundle.pods(at) == pods
            holders = await ledger.holders("/srv/app/t/x", at)
            assert await bundle.holders("/srv/app/t/x", at) == [one for one in holders if one.pod_name != "root"]
            assert await bundle.note(at) == await ledger.note(at)
        seqs = [line.seq for line in await ledger.notifications() if line.pod_name in ("planner", "coder", "tester")]
        assert [line.seq for line in await bundle.notifications()] == [seq for seq in seqs if seq <= 11]


async def test_bundle_explains_only_its_own_pods(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("coder", 7))
    async with Ledger.open(tmp_path / "db") as ledger, Ledger.open(tmp_path / "b") as bundle:
        for pod in ("coder", "tester", "planner"):
            by_ledger = {one.entry.seq: one async for one in ledger.explain(pod)}
            by_bundle = [one async for one in bundle.explain(pod)]
            assert by_bundle == [by_ledger[one.entry.seq] for one in by_bundle]
        with pytest.raises(UsageError, match="does not show the pod 'scout'"):
            await anext(aiter(bundle.explain("scout")))


async def test_holders_outside_the_scope_are_not_named(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("tester"))
    async with Ledger.open(tmp_path / "b") as bundle:
        assert [holder.pod_name for holder in await bundle.holders("/srv/app/t/x", 8)] == ["tester"]
        assert await bundle.holders("/srv/app/x", 8) == []
        assert await bundle.holders("/tmp/map/x", 8) == []


async def test_doctor_finds_no_error_in_a_bundle(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("coder"))
    before = (tmp_path / "b").read_bytes()

    findings = podledger_json("doctor", "--db", tmp_path / "b")["findings"]

    assert [finding["check"] for finding in findings if finding["level"] == "error"] == []
    assert (tmp_path / "b").read_bytes() == before
    assert "holds no whole log" in podledger("recover", tmp_path / "b", tmp_path / "c", status=2).err


async def test_bundle_holds_the_gaps_of_its_reporters(tmp_path: Path) -> None:
    outside = [stamped(turned("scout"), 9, sequence=2)]
    done = await bundled(tmp_path, BundleRequest("coder"), [*a_tree(), *outside])
    with sqlite3.connect(tmp_path / "b") as db:
        gaps = db.execute("SELECT source, pod_name, first, last, after_seq, before_seq FROM bundle_gaps").fetchall()
    db.close()

    assert (gaps, done.gaps) == ([(incarnation(7), "coder", 2, 2, 5, 7)], 1)


async def test_bundle_is_one_private_read_only_file(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest())

    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o400
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("b", ".b"))] == ["b"]
    podledger("verify", "--db", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(("b", ".b"))] == ["b"]


REFUSED = [
    "spawned a --socket /s",
    "exited coder --code 1",
    "release coder --reason x",
    "rebuild",
    "notifications --ack",
    "import -",
    "init root",
    "init other",
    "reconcile",
    "serve --socket SOCKET",
]


@pytest.mark.parametrize("command", REFUSED)
async def test_writing_command_is_refused(tmp_path: Path, command: str) -> None:
    await bundled(tmp_path, BundleRequest())
    before = (tmp_path / "b").read_bytes()

    words = [str(tmp_path / "s") if word == "SOCKET" else word for word in command.split()]
    done = podledger_process("--db", tmp_path / "b", *words, status=2)

    assert "is read-only: it is a bundle of all pods" in done.err
    assert len(done.err.splitlines()) == 1
    assert (tmp_path / "b").read_bytes() == before


async def test_export_bundle_and_collect_need_a_whole_log(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest())

    async with Ledger.open(tmp_path / "b") as bundle:
        with pytest.raises(UsageError, match="holds no whole log"):
            await anext(aiter(export_lines(bundle)))
        with pytest.raises(UsageError, match="holds no whole log"):
            await bundle.bundle(tmp_path / "c", BundleRequest())
        with pytest.raises(ReadOnlyError):
            await bundle.append(TurnEnded(pod_name="a"))
    with pytest.raises(UsageError, match="holds no whole log"):
        await collect([tmp_path / "b"], tmp_path / "c")
    assert not (tmp_path / "c").exists()


async def test_commands_write_read_and_verify_a_bundle(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db", events=a_tree())

    made = podledger_json("bundle", "--db", tmp_path / "db", tmp_path / "b", "--pod", "coder", "--until", "9")
    again = podledger("bundle", "--db", tmp_path / "db", tmp_path / "b", status=1).err
    log = podledger("events", "--db", tmp_path / "b")
    note = podledger("digest", "--db", tmp_path / "db", "--at", "4").out.strip()

    assert (made["pods"], made["shown"], made["entries"], made["gaps"]) == (["coder", "tester"], 6, 9, 1)
    assert "is there already" in again
    assert len(log.out.splitlines()) == 6
    assert log.err.startswith(
        "podledger: a bundle of the pod 'coder' and 1 pod below it of the ledger 'root', seq 1 to 9"
    )
    assert podledger_json("verify", "--db", tmp_path / "b", "--expect", note)["ok"]
    assert not podledger_json("verify", "--db", tmp_path / "b", "--expect", "4:" + "a" * 64, status=1)["ok"]


async def test_backup_of_a_bundle_is_a_bundle(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("coder"))

    podledger("backup", "--db", tmp_path / "b", tmp_path / "c")

    assert podledger_json("verify", "--db", tmp_path / "c")["ok"]
    assert "is a bundle" in podledger("init", "--db", tmp_path / "c", "root", status=2).err


async def test_coverage_states_what_a_file_holds(tmp_path: Path) -> None:
    done = await bundled(tmp_path, BundleRequest("coder", 5, 9))
    whole, part = coverage_of(tmp_path / "db"), coverage_of(tmp_path / "b")

    assert (whole.is_whole, part.is_whole) == (True, False)
    assert part.describe() == f"a bundle of {done.scope.describe()}"
    assert [part.covers(pod) for pod in ("coder", "planner", "scout")] == [True, False, False]
    assert [part.projects(pod) for pod in ("coder", "planner", "scout")] == [True, True, False]
    assert [whole.covers(pod) and whole.projects(pod) for pod in ("coder", "nobody")] == [True, True]


async def test_bundle_recommends_no_program_of_its_own(tmp_path: Path) -> None:
    path = await small_bundle(tmp_path)
    with connected(path) as db:
        texts = dict(db.execute("SELECT name, content FROM bundle_texts"))
    assert set(texts) == {"README"}
    assert "Run no program that comes with this file" in texts["README"]
    assert podledger("bundle", "--verifier").out == verifier()


@pytest.mark.parametrize(("name", "content"), [("verifier.py", "print('verified')"), ("check.sh", "true")])
async def test_verify_reports_a_program_in_a_bundle(tmp_path: Path, name: str, content: str) -> None:
    problems = await problems_with_text(await small_bundle(tmp_path), name, content)
    assert problems == [f"its text {name!r} is not podledger's: do not run it"]


async def test_enclosed_copy_of_the_own_verifier_is_no_problem(tmp_path: Path) -> None:
    assert await problems_with_text(await small_bundle(tmp_path), "verifier.py", verifier()) == []


async def small_bundle(folder: Path) -> Path:
    """Make a bundle of a small ledger; return its path."""
    async with Ledger.open(folder / "whole.db", OWNER) as ledger:
        await ledger.append(spawned("coder"))
        await ledger.bundle(folder / "part.db", BundleRequest())
    (folder / "part.db").chmod(0o600)
    return folder / "part.db"


async def problems_with_text(path: Path, name: str, content: str) -> list[str]:
    """Add a text to a bundle, with a matching digest and checksum; return the problems that `verify` finds."""
    with connected(path) as db:
        db.execute("INSERT INTO bundle_texts VALUES (?, ?)", (name, content))
        texts = db.execute("SELECT name, content FROM bundle_texts ORDER BY name").fetchall()
        row = BundleRow(*db.execute("SELECT * FROM bundle").fetchone())._replace(texts_digest=texts_digest(texts))
        new = row.with_checksum()
        db.execute("UPDATE bundle SET texts_digest = ?, row_checksum = ?", (new.texts_digest, new.row_checksum))
    async with Ledger.open(path) as bundle:
        return [problem.detail for problem in (await bundle.verify()).problems]


async def test_bundle_without_its_scope_is_damaged(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest())
    (tmp_path / "b").chmod(0o600)
    change(tmp_path / "b", (tmp_path / "b").read_bytes(), "DELETE FROM bundle", ())

    with pytest.raises(DamagedError, match="does not state its scope"):
        coverage_of(tmp_path / "b")
    assert not podledger_json("verify", "--db", tmp_path / "b", status=1)["ok"]
    assert not podledger_json("doctor", "--db", tmp_path / "b", status=1)["ok"]


async def test_bundle_of_an_older_schema_is_not_upgraded(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest())
    (tmp_path / "b").chmod(0o600)
    change(tmp_path / "b", (tmp_path / "b").read_bytes(), "UPDATE alembic_version SET version_num = '0001'", ())
    before = (tmp_path / "b").read_bytes()

    refused = podledger("init", "--db", tmp_path / "b", "root", status=1).err

    assert "cannot be upgraded" in refused
    assert (tmp_path / "b").read_bytes() == before


@pytest.mark.parametrize(
    "wanted", [BundleRequest("nobody"), BundleRequest(None, 5, 4), BundleRequest("tester", None, 7)]
)
async def test_empty_bundle_is_refused(tmp_path: Path, wanted: BundleRequest) -> None:
    with pytest.raises(UsageError):
        await bundled(tmp_path, wanted)

    assert not (tmp_path / "b").exists()


async def test_unknown_moment_and_existing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMomentError):
        await bundled(tmp_path, BundleRequest(until=99))
    (tmp_path / "b").write_text("precious")
    async with Ledger.open(tmp_path / "db") as ledger:
        with pytest.raises(StorageError, match="is there already"):
            await ledger.bundle(tmp_path / "b", BundleRequest())

    assert (tmp_path / "b").read_text() == "precious"


TABLES = (
    "ledgers",
    "events",
    "tenures",
    "grants",
    "pods",
    "streams",
    "bundle",
    "withheld",
    "bundle_gaps",
    "bundle_texts",
)


def alterations(db: sqlite3.Connection) -> list[tuple[str, tuple[Any, ...]]]:
    """Return statements that each change one place of a bundle: a value of a table's last row, or the row itself."""
    statements: list[tuple[str, tuple[Any, ...]]] = []
    for table in TABLES:
        rows = db.execute(f"SELECT rowid, * FROM {table}")
        names = [column[0] for column in rows.description[1:]]
        for rowid, *values in rows.fetchall()[-1:]:
            statements.append((f"DELETE FROM {table} WHERE rowid = ?", (rowid,)))
            for name, value in zip(names, values, strict=True):
                other = (
                    value + 1 if isinstance(value, int) else 7 if name.endswith(("us", "seq", "id")) else f"{value}x"
                )
                if value is None and name in ("stamp_id", "source", "subject"):
                    other = "x"
                statements.append((f"UPDATE {table} SET {name} = ? WHERE rowid = ?", (other, rowid)))
    return statements


async def test_verify_finds_any_single_change(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("coder", 5, 9))
    (tmp_path / "b").chmod(0o600)
    whole = (tmp_path / "b").read_bytes()
    with sqlite3.connect(tmp_path / "b") as db:
        changes = alterations(db)
    db.close()
    missed = []
    for statement, values in changes:
        if change(tmp_path / "b", whole, statement, values) and await passes(tmp_path / "b"):
            missed.append((statement, values))

    assert len(changes) > 70
    assert missed == []


def change(path: Path, whole: bytes, statement: str, values: tuple[Any, ...]) -> bool:
    """Write the bundle with one change, and the triggers as they were; return False if SQLite refuses the change."""
    path.write_bytes(whole)
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.executescript("PRAGMA synchronous = OFF; BEGIN")
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement, values)
        for _, sql in triggers:
            db.execute(sql)
        db.execute("COMMIT")
    except sqlite3.IntegrityError:
        return False
    finally:
        db.close()
    return True


async def passes(path: Path) -> bool:
    """Return whether the bundle opens and verifies."""
    try:
        async with Ledger.open(path) as bundle:
            return (await bundle.verify()).ok
    except Exception as error:
        if type(error).__module__ != "podledger.core.errors":
            raise
        return False


async def test_verify_finds_a_payload_removed_later(tmp_path: Path) -> None:
    await bundled(tmp_path, BundleRequest("coder", 5, 9))
    (tmp_path / "b").chmod(0o600)
    whole = (tmp_path / "b").read_bytes()
    payload = next(entry.payload for entry in await entries(tmp_path / "b") if entry.seq == 7)
    digest = payload_digest(payload)
    change(tmp_path / "b", whole, "INSERT INTO withheld VALUES ('root', 7, ?)", (digest,))
    change(tmp_path / "b", (tmp_path / "b").read_bytes(), "UPDATE events SET payload = '{}' WHERE seq = 7", ())

    async with Ledger.open(tmp_path / "b") as bundle:
        problems = (await bundle.verify()).problems

    assert [(problem.check, problem.seq) for problem in problems] == [("bundle", 7)]


names = st.sampled_from(["a", "b", "c", "d"])
scopes = st.lists(st.sampled_from(["/x", "/x/y", "/z"]), max_size=2).map(lambda targets: writes(*targets))
stamps = st.none() | st.builds(stamp, st.integers(1, 4), st.integers(1, 9), st.integers(1, 4))
histories = st.lists(
    st.one_of(
        st.builds(PodSpawned, pod_name=names, socket_path=st.just("/s"), scope=scopes, stamp=stamps),
        st.builds(
            ScopeSubDelegated, parent_pod=names, sub_pod=names, sub_socket=st.just("/t"), scope=scopes, stamp=stamps
        ),
        st.builds(ShutDown, pod_name=names, stamp=stamps),
        st.builds(TurnEnded, pod_name=names, stamp=stamps),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=30)
@given(histories, names, st.data())
def test_bundle_of_any_history_shows_the_same_pods(history: list[LedgerEvent], pod: str, data: st.DataObject) -> None:
    since, until = sorted(data.draw(st.tuples(*[st.integers(1, len(history))] * 2), "span"))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_compare(Path(folder), history, BundleRequest(pod, since, until)))


async def _compare(folder: Path, history: list[LedgerEvent], request: BundleRequest) -> None:
    try:
        scope = (await bundled(folder, request, history)).scope
    except UsageError:
        return
    async with Ledger.open(folder / "db") as ledger, Ledger.open(folder / "b") as bundle:
        assert (await bundle.verify()).problems == ()
        for at in range(scope.since_seq, scope.until_seq + 1):
            assert await bundle.pods(at) == [pod for pod in await ledger.pods(at) if scope.projects(pod.pod_name)]
        shown: Callable[[Entry], bool] = lambda entry: (  # noqa: E731
            scope.projects(entry.pod_name)
            if entry.kind in DELEGATIONS
            else entry.pod_name in (scope.pods or ()) and entry.seq >= scope.since_seq
        )
        log = [entry async for entry in ledger.entries(until=scope.until_seq)]
        assert [entry async for entry in bundle.entries()] == list(filter(shown, log))
