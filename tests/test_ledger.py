"""`Ledger`: an append is kept as a whole or not at all, also if other processes write or this one is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection

from podledger.core.entries import draft
from podledger.core.errors import (
    DamagedError,
    InvalidMomentError,
    InvalidNameError,
    LedgerNotFoundError,
    StorageError,
    UsageError,
)
from podledger.core.events import Errored, LedgerEvent, PodSpawned
from podledger.core.fields import ScopeRule
from podledger.ledger import Ledger
from podledger.store import group_commit
from podledger.store.append import Appended
from podledger.store.log import Rejection
from tests.given import OWNER, delegated, reclaimed, spawned, stamped, stopped, turned, writes
from tests.model import Model
from tests.support import PROJECTIONS, connected, fresh_ledger, new_database, rows_of

BIG = Errored(pod_name="p", message="x" * 200_000)


async def seqs(ledger: Ledger) -> list[int]:
    return [entry.seq async for entry in ledger.entries()]


# Opening


async def test_open_by_name_creates_database_and_ledger(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with Ledger.open(path, "root") as ledger:
        assert (ledger.name, await ledger.pods(), await seqs(ledger)) == ("root", [], [])
    async with Ledger.open(path) as again:
        assert again.name == "root"


@pytest.mark.parametrize("url", ["sqlite:///{}", "sqlite+aiosqlite:///{}", "sqlite+pysqlite:///{}"])
async def test_url_names_a_file(url: str, tmp_path: Path) -> None:
    async with Ledger.open(url.format(tmp_path / "l.db"), "root") as ledger:
        await ledger.append(turned("p"))
    async with Ledger.open(tmp_path / "l.db") as ledger:
        assert await seqs(ledger) == [1]


@pytest.mark.parametrize("url", ["postgresql+psycopg://h/d", "sqlite://", "sqlite:///:memory:", "mysql://h/d", "x://"])
async def test_url_of_no_sqlite_file_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        async with Ledger.open(url, "root"):
            pass
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a b.db", "we?rd #1 %41.db", "ö'\"`.db", "new\nline.db", "-rf.db", "file:x.db"])
async def test_file_may_have_any_name(name: str, tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / name, "root") as ledger:
        await ledger.append(turned("p"))
        assert (await ledger.verify()).ok
    assert {path.name for path in tmp_path.iterdir()} == {name}


async def test_relative_path_survives_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Ledger.open("l.db", "root") as ledger:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        await ledger.append(turned("p"))
        assert await seqs(ledger) == [1]
        assert (await ledger.verify()).ok
        assert await ledger.rebuild() == 0
    assert list(Path().iterdir()) == []


async def test_open_without_a_name_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerNotFoundError) as caught:
        async with Ledger.open(tmp_path / "l.db"):
            pass
    assert "init" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


async def test_open_without_create_creates_nothing(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db", "root"):
        pass
    with pytest.raises(LedgerNotFoundError, match="other"):
        async with Ledger.open(tmp_path / "l.db", "other", create=False):
            pass


async def test_several_ledgers_need_a_choice(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    for name in ("b", "a"):
        async with Ledger.open(path, name) as ledger:
            await ledger.append(spawned("p", f"/run/{name}"))
    with pytest.raises(LedgerNotFoundError, match="2 ledgers") as caught:
        async with Ledger.open(path):
            pass
    assert "a, b" in caught.value.hint
    async with Ledger.open(path, "b") as ledger:
        assert [(entry.seq, entry.ledger) async for entry in ledger.entries()] == [(1, "b")]
        assert [pod.socket_path for pod in await ledger.pods()] == ["/run/b"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\nb", "x" * 256])
def test_ledger_name_is_checked(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError):
        Ledger.open(tmp_path / "l.db", name)


async def test_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        async with Ledger.open(tmp_path / "none" / "l.db", "root"):
            pass
    assert "folder" in caught.value.hint


async def test_closed_ledger_refuses_calls(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db", "root") as ledger:
        pass
    with pytest.raises(StorageError, match="not open"):
        await ledger.append(turned("p"))
    with pytest.raises(StorageError, match="not open"):
        await ledger.pods()


async def test_ledger_can_be_reopened(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "l.db", "root")
    for _ in range(2):
        async with ledger:
            await ledger.append(turned("p"))
    async with ledger:
        assert await seqs(ledger) == [1, 2]


# Appending


async def test_append_returns_after_the_commit() -> None:
    """Another process sees it as soon as `append` has returned."""
    async with fresh_ledger() as ledger:
        for number in range(5):
            entry = await ledger.append(turned("p"))
            assert rows_of(ledger.database.path, "events")["events"][-1][1] == entry.seq == number + 1


async def test_concurrent_appends_share_transactions() -> None:
    async with fresh_ledger() as ledger:
        batches: list[Appended] = []
        ledger.on_commit(batches.append)
        entries = await asyncio.gather(*(ledger.append(turned(f"p{number}")) for number in range(2_500)))
        assert [entry.seq for entry in entries] == list(range(1, 2_501))
        assert [entry.pod_name for entry in entries] == [f"p{number}" for number in range(2_500)]
        assert sum(len(batch.entries) for batch in batches) == 2_500
        assert 3 <= len(batches) <= 5


async def test_callers_beyond_the_limit_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_WAITING", 3)
    monkeypatch.setattr(group_commit, "MAX_BATCH", 2)
    async with fresh_ledger() as ledger:
        entries = await asyncio.gather(*(ledger.append(turned(f"p{number}")) for number in range(50)))
        assert sorted(entry.seq for entry in entries) == list(range(1, 51))


async def test_append_many_is_one_transaction() -> None:
    async with fresh_ledger() as ledger:
        batches: list[Appended] = []
        ledger.on_commit(batches.append)
        await asyncio.gather(ledger.append(turned("p")), ledger.append_many([spawned("p"), stopped("p")] * 1_500))
        assert {len(batch.entries) for batch in batches} <= {1, 3_000, 3_001}
        assert await ledger.append_many([]) == []


async def limit_pages(ledger: Ledger, more: int) -> None:
    """Let the file grow by so many pages and no further, as on a disk that is nearly full."""

    def limit(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + more}")

    await ledger.database.write(limit)


async def test_full_disk_leaves_no_part_of_a_batch() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p"))
        before = rows_of(ledger.database.path, "events", "ledgers", *PROJECTIONS)
        await limit_pages(ledger, 60)
        with pytest.raises(StorageError, match="disk is full") as caught:
            await ledger.append_many([stopped("p"), BIG, spawned("q"), BIG])
        assert caught.value.__cause__ is not None
        assert rows_of(ledger.database.path, "events", "ledgers", *PROJECTIONS) == before
        assert (await ledger.append(turned("p"))).outcome == "noted", "the cache holds an uncommitted event"
        assert await seqs(ledger) == [1, 2]
        assert (await ledger.verify()).ok


async def test_every_caller_of_a_failed_commit_gets_the_error() -> None:
    async with fresh_ledger() as ledger:
        await limit_pages(ledger, 20)
        results = await asyncio.gather(*(ledger.append(BIG) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [StorageError] * 3
        assert await seqs(ledger) == []


async def test_busy_database_raises_storage_error() -> None:
    async with fresh_ledger(busy_timeout_s=0.05) as ledger:
        with connected(ledger.database.path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match="another process holds the lock"):
                await ledger.append(turned("p"))
            assert await seqs(ledger) == []
            other.execute("ROLLBACK")
        assert (await ledger.append(turned("p"))).seq == 1


async def test_append_waits_for_a_busy_database() -> None:
    async with fresh_ledger(busy_timeout_s=30) as ledger:
        with connected(ledger.database.path) as other:
            other.execute("BEGIN IMMEDIATE")
            appending = asyncio.create_task(ledger.append(turned("p")))
            await ledger.head()
            assert not appending.done()
            other.execute("COMMIT")
            assert (await appending).seq == 1


async def test_cancelled_append_does_not_harm_others() -> None:
    async with fresh_ledger() as ledger:
        appending = [asyncio.create_task(ledger.append(turned(f"p{number}"))) for number in range(100)]
        await asyncio.sleep(0)
        for task in appending[::2]:
            task.cancel()
        entries = await asyncio.gather(*appending[1::2])
        assert [entry.seq for entry in entries] == sorted(entry.seq for entry in entries)
        assert (await ledger.verify()).ok


async def test_failed_batch_does_not_block_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_BATCH", 1)
    async with fresh_ledger() as ledger, asyncio.timeout(5):
        no_text = draft(turned("p"), OWNER, payload="\ud800")
        appending = [ledger.append(turned("p")), ledger.commits.append([no_text]), ledger.append(turned("p"))]
        first, failed, last = await asyncio.gather(*appending, return_exceptions=True)
        assert isinstance(failed, StorageError)
        assert [entry.seq async for entry in ledger.entries()] == [1, 2]
        assert not isinstance(first, BaseException)
        assert not isinstance(last, BaseException)


async def test_failing_listener_does_not_fail_the_append() -> None:
    def fail(_: Appended) -> None:
        raise RuntimeError("the listener's own fault")

    async with fresh_ledger() as ledger, asyncio.timeout(5):
        ledger.on_commit(fail)
        assert (await ledger.append(turned("p"))).seq == 1
        assert (await ledger.append(turned("p"))).seq == 2


async def test_leaving_waits_for_running_commits(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "l.db", "root") as ledger:
        appending = [asyncio.create_task(ledger.append(turned("p"))) for _ in range(50)]
        await asyncio.sleep(0)
    assert [(await task).seq for task in appending] == list(range(1, 51))


async def test_events_of_another_process_count_at_once(tmp_path: Path) -> None:
    """The head has moved, so the cache is dropped and the status of `p` comes from the projection."""
    path = tmp_path / "l.db"
    history: list[LedgerEvent] = [
        spawned("p"),
        stopped("p"),
        turned("p"),
        spawned("p"),
        turned("p"),
        spawned("p", "/x"),
    ]
    async with Ledger.open(path, "root") as one, Ledger.open(path, "root") as two:
        outcomes = [(await ledger.append(event)).outcome for ledger, event in zip([one, two] * 3, history, strict=True)]
        assert outcomes == Model.of(history).outcomes
        assert await one.pods() == await two.pods()


async def test_rebuild_by_another_process_drops_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with Ledger.open(path, "root") as one, Ledger.open(path, "root") as two:
        await one.append(spawned("p"))
        with connected(path) as connection:
            connection.execute("UPDATE pods SET status = 'ended'")
        assert (await two.append(turned("q"))).seq == 2
        assert (await two.append(turned("p"))).outcome == "late", "the projection decides"
        assert await one.rebuild() > 0
        assert (await two.append(turned("p"))).outcome == "noted"


async def test_rebuild_during_appends_loses_nothing() -> None:
    async with fresh_ledger() as ledger:

        async def live(number: int) -> None:
            await ledger.append(spawned(f"p{number}", scope=writes("/srv")))
            await ledger.append(reclaimed(f"p{number}"))
            await ledger.append(turned(f"p{number}"))

        lives = [asyncio.create_task(live(number)) for number in range(200)]
        changed = [await ledger.rebuild() for _ in range(4)]
        await asyncio.gather(*lives)
        assert changed == [0] * 4
        assert (await ledger.verify()).problems == ()
        assert len(await ledger.pods()) == 200


async def test_listeners_are_called_after_each_commit() -> None:
    async with fresh_ledger() as ledger:
        heard: list[tuple[int, bool]] = []
        ledger.on_commit(lambda recorded: heard.append((recorded.head.head_seq, recorded.registry_changed)))
        for event in (turned("p"), spawned("p"), turned("p"), stopped("p")):
            await ledger.append(event)
        assert heard == [(1, False), (2, True), (3, False), (4, True)]


async def test_removed_listener_is_not_called_again() -> None:
    async with fresh_ledger() as ledger:
        seqs: list[int] = []
        remove = ledger.on_commit(lambda appended: seqs.append(appended.head.head_seq))
        await ledger.append(turned("p"))
        remove()
        await ledger.append(turned("p"))
        assert seqs == [1]


# Reading


async def test_reading_continues_while_another_process_writes() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p"))
        with connected(ledger.database.path) as writer:
            writer.execute("BEGIN IMMEDIATE")
            assert [pod.pod_name for pod in await ledger.pods()] == ["p"]
            assert await seqs(ledger) == [1]


async def test_readers_cannot_write() -> None:
    async with fresh_ledger() as ledger:
        with pytest.raises(StorageError, match="read-only"):
            await ledger.read(lambda connection: connection.exec_driver_sql("DELETE FROM pods"))


async def test_readme_example_works(tmp_path: Path) -> None:
    """The example of the README, except for its output."""
    async with Ledger.open(tmp_path / "l.db", "root") as ledger:
        rule = ScopeRule(target="/srv/app", permission="write")
        await ledger.append(PodSpawned(pod_name="child", socket_path="/run/c", scope=(rule,)))
        entry = await ledger.append(turned("child"))
        assert (entry.seq, entry.outcome, len(entry.digest)) == (2, "noted", 64)
        assert [pod.pod_name for pod in await ledger.pods(at=1)] == ["child"]
        assert [who.pod_name for who in await ledger.holders("/srv/app/a.txt", at=entry.seq)] == ["child"]
        assert [entry async for entry in ledger.entries(pod="child", kind="shut_down")] == []
        certificate = await ledger.verify()
        assert (certificate.ok, certificate.events, certificate.head_digest) == (True, 2, entry.digest)


# Carrying it


async def exported(ledger: Ledger) -> list[tuple[object, ...]]:
    return [tuple(entry) async for entry in ledger.entries()]


async def test_restore_keeps_entries_unchanged(tmp_path: Path) -> None:
    history = [spawned("p"), stamped(turned("p"), 3), reclaimed("p"), turned("p"), stopped("p")]
    async with Ledger.open(tmp_path / "a.db", "root") as source, Ledger.open(tmp_path / "b.db", "root") as copy:
        await source.append_many(history)
        entries = [entry async for entry in source.entries()]
        assert await copy.commits.restore(entries[:2]) == await copy.commits.restore(entries[2:]) == []
        assert await exported(copy) == await exported(source)
        assert rows_of(tmp_path / "a.db", *PROJECTIONS) == rows_of(tmp_path / "b.db", *PROJECTIONS)
        assert (await copy.append(turned("p"))).seq == 6
        assert (await copy.verify()).ok


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"payload": '{"kind":"turn_ended","pod_name":"P"}'}, "digest"),
        ({"outcome": "late"}, "digest"),
        ({"seq": 3}, "seq is 3"),
        ({"recorded_us": 0}, "before"),
        ({"ledger": "other"}, "other"),
        ({"digest": "0" * 64}, "digest"),
    ],
)
async def test_restore_refuses_an_entry_off_the_chain(change: dict[str, object], reason: str, tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "a.db", "root") as source, Ledger.open(tmp_path / "b.db", "root") as copy:
        first, second = await source.append_many([spawned("p"), turned("p")])
        ((position, refusal),) = await copy.commits.restore([first, second._replace(**change)])  # type: ignore[arg-type]
        assert (position, reason in refusal) == (1, True), refusal
        assert await seqs(copy) == [1]
        assert (await copy.verify()).ok


# Settings and cursors


async def test_settings_stay_unless_set_and_can_be_cleared() -> None:
    async with fresh_ledger() as ledger:
        await ledger.configure(parent_socket="/run/parent", mirror="/m.json")
        assert (await ledger.configure()).parent_socket == "/run/parent"
        head = await ledger.configure(parent_socket="")
        assert (head.parent_socket, head.mirror) == (None, "/m.json")
        assert await ledger.head() == head


async def test_moment_beyond_the_log_is_refused() -> None:
    async with fresh_ledger() as ledger:
        with pytest.raises(InvalidMomentError):
            await ledger.pods(at=1)
        with pytest.raises(InvalidMomentError):
            await ledger.holders("/x", at=1)
        with pytest.raises(InvalidMomentError):
            await ledger.acknowledge(1)


# kill -9

APPENDER = """
import asyncio, sys
from podledger.core.events import PodReclaimed, PodSpawned
from podledger.ledger import Ledger
from podledger.core.events import ShutDown, TurnEnded

LIFE = (PodSpawned(pod_name="p", socket_path="/run/p"), TurnEnded(pod_name="p"), PodReclaimed(pod_name="p", reason="-"),
        TurnEnded(pod_name="p"), ShutDown(pod_name="p"))

async def main(path):
    async with Ledger.open(path, "root") as ledger:
        while True:
            for event in LIFE:
                print((await ledger.append(event)).digest, flush=True)
            for entry in await ledger.append_many(LIFE * 20):
                print(entry.digest, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def append_until_killed(path: Path, lines: int) -> list[str]:
    """Append in a process until it is killed; return the digests of the entries whose append had returned."""
    with subprocess.Popen([sys.executable, "-c", APPENDER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        acknowledged = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    return [line.strip() for line in acknowledged if len(line) == 65]


async def test_returned_append_survives_kill_9(tmp_path: Path) -> None:
    """The process is killed fifteen times, each time after more entries. Each round continues the same ledger."""
    path = new_database(tmp_path / "l.db")
    acknowledged: list[str] = []
    for round_ in range(15):
        acknowledged += append_until_killed(path, 1 + 17 * round_)
        kept = [row[-1] for row in rows_of(path, "events")["events"]]
        assert set(acknowledged) <= set(kept), f"round {round_}"
        acknowledged = kept
    async with Ledger.open(path) as ledger:
        assert (await ledger.verify()).problems == ()
        history = [entry.event async for entry in ledger.entries()]
        assert [entry.outcome async for entry in ledger.entries()] == Model.of(history).outcomes


async def test_killed_append_many_leaves_all_or_nothing(tmp_path: Path) -> None:
    """`append_many` of a hundred: after the kill there are all of them or none."""
    path = new_database(tmp_path / "l.db")
    append_until_killed(path, 105 + 5 + 50)
    kinds = [row[4] for row in rows_of(path, "events")["events"]]
    assert len(kinds) >= 160
    assert len(kinds) % 105 <= 5, "a part of a batch is there"


async def test_damaged_file_is_reported_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with Ledger.open(path, "root") as ledger:
        await ledger.append(turned("p"))
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(len(content) - 100))
    with pytest.raises(DamagedError) as caught:
        async with Ledger.open(path):
            pass
    assert caught.value.hint


def test_plain_sqlite3_reads_the_whole_log(tmp_path: Path) -> None:
    """`sqlite3` can read while the ledger is open, because of WAL."""

    async def check(events: Sequence[LedgerEvent]) -> None:
        async with Ledger.open(tmp_path / "l.db", "root") as ledger:
            await ledger.append_many(events)
            await ledger.commits.append([], [Rejection(b"x", "no", None)])
            with sqlite3.connect(f"file:{tmp_path / 'l.db'}?mode=ro", uri=True) as connection:
                assert connection.execute("SELECT count(*), max(seq) FROM events").fetchone() == (2, 2)
                assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            connection.close()

    asyncio.run(check([spawned("p"), delegated("q")]))
    assert os.listdir(tmp_path) == ["l.db"], "the WAL is folded in when the last one closes"  # noqa: PTH208
