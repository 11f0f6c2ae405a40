"""The outbox over real sockets, with parents that answer, are slow, are dead or return."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
import weakref
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from podledger.core.protocol import Report, parse_line
from podledger.core.stamps import Stamper
from podledger.ledger import Ledger
from podledger.server.receiver import Limits, Receiver
from podledger.services.outbox import Outbox, Retry
from podledger.store.outbox_rows import OutboxItem
from tests.given import OWNER, delegated, incarnation, spawned, stamped, stopped, turned, writes
from tests.runner import podledger, podledger_json, start
from tests.sockets import dead_at, parent_at, silent_at
from tests.support import change_outbox, connected, fresh_ledger
from tests.waiting import wait_until

FAST_RETRY = Retry(first_wait_s=0.01, longest_wait_s=0.02, timeout_s=1.0)


async def statuses(ledger: Ledger) -> list[str]:
    return [item.status for item in await ledger.outbox_items()]


async def _statuses_are(ledger: Ledger, *expected: str) -> bool:
    return await statuses(ledger) == list(expected)


async def test_delegation_reaches_the_parent_once(short: Path) -> None:
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger, Outbox(ledger, retry=FAST_RETRY) as outbox:
        await ledger.configure(parent_socket=parent.path)
        await ledger.append_many([spawned("a", scope=writes("/srv")), delegated("b"), delegated("b"), turned("a")])
        assert await outbox.drain(within_s=10) == 0
        await wait_until(lambda: len(parent.lines) >= 2)
        assert parent.reported_pods == ["a", "b"]
        assert {event["parent_pod"] for event in parent.events} == {OWNER}
        assert await statuses(ledger) == ["sent", "sent"]
        assert (await ledger.verify()).ok


async def test_parent_receives_a_stamped_report(short: Path) -> None:
    stamper = Stamper(incarnation(9))
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger, Outbox(ledger, stamper=stamper) as outbox:
        await ledger.configure(parent_socket=parent.path)
        await ledger.append(stamped(delegated("b", "/run/b", writes("/é")), 7, 5))
        await outbox.drain(within_s=10)
        await wait_until(lambda: parent.lines)
        report = parse_line(parent.lines[0].rstrip(b"\n"))
        assert isinstance(report, Report)
        assert report.event.stamp
        stamp = report.event.stamp
        assert (stamp.subject, stamp.source, stamp.sequence) == (incarnation(7), incarnation(9), 1)


async def test_parent_with_a_long_history_receives_the_report(short: Path) -> None:
    async with parent_at(short / "p", history_bytes=2 << 20) as parent, fresh_ledger() as ledger:
        await ledger.configure(parent_socket=parent.path)
        async with Outbox(ledger, retry=FAST_RETRY) as outbox:
            await ledger.append(spawned("a"))
            assert await outbox.drain(within_s=10) == 0
            await wait_until(lambda: parent.lines)
        assert parent.reported_pods == ["a"]


async def test_reports_are_sent_in_order(short: Path) -> None:
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger, Outbox(ledger, retry=FAST_RETRY) as outbox:
        await ledger.configure(parent_socket=parent.path)
        names = [f"p{number:02}" for number in range(40)]
        await asyncio.gather(*(ledger.append(spawned(name)) for name in names))
        assert await outbox.drain(within_s=20) == 0
        await wait_until(lambda: len(parent.lines) >= 40)
        sequences = [event["stamp"]["sequence"] for event in parent.events]
        assert (parent.reported_pods, sequences) == (names, sorted(sequences))


@pytest.mark.parametrize("state", ["absent", "dead", "silent", "closes"])
async def test_failing_parent_is_retried_until_it_returns(
    state: str, short: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = short / "p"
    if state == "dead":
        dead_at(path)
    async with fresh_ledger() as ledger:
        await ledger.configure(parent_socket=str(path))
        await ledger.append_many([spawned("a"), spawned("b")])
        async with Outbox(ledger, retry=FAST_RETRY._replace(timeout_s=0.05)) as outbox:
            async with failing_at(path, state):
                failed = await _attempted(ledger, 8)
            assert (failed.status, bool(failed.last_error)) == ("pending", True)
            assert caplog.text.count(f"the parent at {path} takes no reports") == 1
            path.unlink(missing_ok=True)
            async with parent_at(path) as parent:
                assert await outbox.drain(within_s=20) == 0
                await wait_until(lambda: len(parent.lines) >= 2)
                assert parent.reported_pods == ["a", "b"]
        assert [(item.status, item.last_error) for item in await ledger.outbox_items()] == [("sent", None)] * 2
        assert (await ledger.verify()).ok


@contextlib.asynccontextmanager
async def failing_at(path: Path, state: str) -> AsyncIterator[None]:
    if state not in ("silent", "closes"):
        yield
        return
    with silent_at(path) as listener:
        listener.setblocking(False)
        closing = asyncio.create_task(_close_each(listener)) if state == "closes" else None
        yield
        if closing is not None:
            closing.cancel()
            await asyncio.wait([closing])


async def _close_each(listener: socket.socket) -> None:
    while True:
        client, _ = await asyncio.get_running_loop().sock_accept(listener)
        client.close()


async def test_parent_that_returns_in_time_receives_the_report(short: Path) -> None:
    async with fresh_ledger() as ledger, Outbox(ledger, retry=FAST_RETRY) as outbox:
        await ledger.configure(parent_socket=str(short / "p"))
        await ledger.append(spawned("a"))
        await _attempted(ledger, 2)
        async with parent_at(short / "p") as parent:
            assert await outbox.drain(within_s=10) == 0
            await wait_until(lambda: parent.lines)
            assert parent.reported_pods == ["a"]


async def _attempted(ledger: Ledger, attempts: int) -> OutboxItem:
    async with asyncio.timeout(10):
        while (item := (await ledger.outbox_items())[0]).attempts < attempts:
            await asyncio.sleep(0.005)
    return item


async def test_restart_sends_pending_items_and_keeps_counting(short: Path) -> None:
    persistent = FAST_RETRY._replace(first_wait_s=30, longest_wait_s=30)
    async with fresh_ledger() as ledger:
        await ledger.configure(parent_socket=str(short / "p"))
        await ledger.append_many([spawned("a"), spawned("b")])
        async with Outbox(ledger, retry=persistent):
            await _attempted(ledger, 1)
        assert await statuses(ledger) == ["pending", "pending"]
        async with parent_at(short / "p") as parent, Outbox(ledger, retry=persistent) as outbox:
            assert await outbox.drain(within_s=10) == 0
            await wait_until(lambda: len(parent.lines) >= 2)
            assert parent.reported_pods == ["a", "b"]
        assert [item.attempts for item in await ledger.outbox_items()] == [2, 1]


async def test_redelivery_keeps_its_stamp(short: Path) -> None:
    """If a process dies after sending an item and before storing that, the next one sends the same bytes again."""
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger:
        await ledger.configure(parent_socket=parent.path)
        await ledger.append(spawned("a"))
        for _ in range(2):
            (item,) = await ledger.outbox_items()
            await change_outbox(ledger, item._replace(status="pending"))
            async with Outbox(ledger, retry=FAST_RETRY) as outbox:
                assert await outbox.drain(within_s=10) == 0
        await wait_until(lambda: len(parent.lines) >= 2)
        assert parent.lines[0] == parent.lines[1]


async def test_hanging_parent_does_not_slow_appends(short: Path) -> None:
    with silent_at(short / "p"):
        async with fresh_ledger() as ledger, Outbox(ledger, retry=FAST_RETRY._replace(timeout_s=5)):
            await ledger.configure(parent_socket=str(short / "p"))
            await ledger.append(spawned("first"))
            started = time.monotonic()
            for number in range(50):
                await ledger.append(spawned(f"p{number}"))
            assert time.monotonic() - started < 3
            assert set(await statuses(ledger)) == {"pending"}


async def test_exit_does_not_wait_for_a_hanging_parent(short: Path) -> None:
    with silent_at(short / "p"):
        async with fresh_ledger() as ledger:
            await ledger.configure(parent_socket=str(short / "p"))
            await ledger.append(spawned("a"))
            started = time.monotonic()
            async with Outbox(ledger, retry=FAST_RETRY._replace(timeout_s=2)):
                await asyncio.sleep(0.05)
            assert time.monotonic() - started < 1.5
            assert await statuses(ledger) == ["pending"]


async def test_items_of_another_process_are_sent(short: Path) -> None:
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger:
        await ledger.configure(parent_socket=parent.path)
        async with Outbox(ledger, retry=FAST_RETRY, poll_s=0.02), Ledger.open(ledger.database.path) as another:
            await another.append(spawned("a"))
            await wait_until(lambda: parent.lines)
            assert parent.reported_pods == ["a"]


async def test_rebuild_and_verify_send_nothing(short: Path) -> None:
    """Law 5 of docs/rules.md, with an outbox running."""
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger:
        await ledger.configure(parent_socket=parent.path)
        async with Outbox(ledger, retry=FAST_RETRY, poll_s=0.02) as outbox:
            await ledger.append_many([spawned("a"), stopped("a"), delegated("b")])
            await outbox.drain(within_s=10)
            await wait_until(lambda: len(parent.lines) == 2)
            kept = await ledger.outbox_items()
            assert await ledger.rebuild() == 0
            assert (await ledger.verify()).ok
            await ledger.append(spawned("last"))
            await wait_until(lambda: "last" in parent.reported_pods)
        assert parent.reported_pods == ["a", "b", "last"]
        assert (await ledger.outbox_items())[: len(kept)] == kept


async def test_more_than_one_page_is_sent(short: Path) -> None:
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger:
        await ledger.configure(parent_socket=parent.path)
        await ledger.append_many([spawned(f"p{number}") for number in range(1_100)])
        async with Outbox(ledger, retry=FAST_RETRY) as outbox:
            assert await outbox.drain(within_s=60) == 0
            await wait_until(lambda: len(parent.lines) >= 1_100)
        assert len(set(parent.reported_pods)) == 1_100 == len(parent.reported_pods)


@pytest.mark.parametrize(("attempts", "wait_s"), [(1, 0.2), (2, 0.4), (3, 0.8), (9, 51.2), (10, 60.0), (5_000, 60.0)])
def test_wait_doubles_up_to_the_longest(attempts: int, wait_s: float) -> None:
    assert Retry().wait_s(attempts) == pytest.approx(wait_s)


async def test_drain_counts_every_pending_item(short: Path) -> None:
    slow = FAST_RETRY._replace(first_wait_s=30, longest_wait_s=30)
    async with fresh_ledger() as ledger, Outbox(ledger, retry=slow) as outbox:
        await ledger.configure(parent_socket=str(short / "absent"))
        await ledger.append_many([spawned(f"p{number}") for number in range(1_100)])
        assert await outbox.drain(within_s=0) == 1_100


async def test_ledger_releases_a_closed_outbox() -> None:
    async with fresh_ledger() as ledger:
        outbox = Outbox(ledger)
        async with outbox:
            await outbox.drain(within_s=0)
        await ledger.head()  # the driver's thread keeps its last call, and so the outbox, until the next one
        released = weakref.ref(outbox)
        del outbox
        gc.collect()
        assert released() is None


async def test_outbox_closes_in_the_moment_of_a_commit(short: Path) -> None:
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger, asyncio.timeout(20):
        await ledger.configure(parent_socket=parent.path)
        for number in range(10):
            async with Outbox(ledger, retry=FAST_RETRY) as outbox:
                await outbox.drain(within_s=20)
                await ledger.append(spawned(f"p{number}"))


async def test_old_parent_that_is_gone_does_not_delay_the_new_one(short: Path) -> None:
    async with parent_at(short / "new") as parent, fresh_ledger() as ledger:
        await ledger.configure(parent_socket=str(short / "old"))
        await ledger.append(spawned("a"))
        await ledger.configure(parent_socket=parent.path)
        await ledger.append(spawned("b"))
        async with Outbox(ledger, retry=FAST_RETRY):
            await wait_until(lambda: _statuses_are(ledger, "pending", "sent"))
        assert parent.reported_pods == ["b"]


async def test_two_outboxes_send_an_item_with_the_same_stamp(short: Path) -> None:
    """`podledger outbox --retry` may run next to `podledger serve`."""
    async with parent_at(short / "p") as parent, fresh_ledger() as ledger:
        await ledger.configure(parent_socket=parent.path)
        await ledger.append_many([spawned(f"p{number}") for number in range(20)])
        await asyncio.gather(*(Outbox(ledger, stamper=Stamper()).send_pending() for _ in range(2)))
        await wait_until(lambda: len(set(parent.reported_pods)) == 20)
        assert len({event["stamp"]["id"] for event in parent.events}) == 20
        assert set(await statuses(ledger)) == {"sent"}


def waiting(folder: Path, parent: str) -> None:
    """Give the ledger in `folder` a parent, and a report that it owes it."""
    podledger("init", OWNER, "--parent", parent, folder=folder)
    podledger("spawned", "coder", "--socket", "coder.sock", "--scope", "write:/srv", folder=folder)


def test_command_lists_what_waits_and_fails_after_a_failed_attempt(tmp_path: Path) -> None:
    waiting(tmp_path, "/run/nobody.sock")
    [item] = podledger_json("outbox", folder=tmp_path)
    assert (item["number"], item["attempts"], item["payload"]["sub_pod"]) == (1, 0, "coder")
    done = podledger("outbox", "--retry", folder=tmp_path, status=1)
    assert "/run/nobody.sock" in done.out
    assert "No such file" in done.out
    assert podledger_json("outbox", folder=tmp_path, status=1)[0]["attempts"] == 1


async def test_command_retries(short: Path) -> None:
    async with parent_at(short / "p") as parent:
        waiting(short, parent.path)
        assert await asyncio.to_thread(podledger_json, "outbox", "--retry", folder=short) == []
        assert parent.reported_pods == ["coder"]


def test_command_discards(tmp_path: Path) -> None:
    waiting(tmp_path, "/run/nobody.sock")
    assert "no report 2 waits" in podledger("outbox", "--discard", 1, "--discard", 2, folder=tmp_path, status=2).err
    assert podledger_json("outbox", "--discard", 1, folder=tmp_path) == []
    assert "no report 1 waits" in podledger("outbox", "--discard", 1, folder=tmp_path, status=2).err
    assert "no report waits" in podledger("outbox", folder=tmp_path).out
    podledger("verify", folder=tmp_path)


# A parent that offers acknowledgements


@contextlib.asynccontextmanager
async def owner_at(folder: Path, **limits: Any) -> AsyncIterator[tuple[Ledger, Receiver]]:
    """Run an owner whose receiver listens on `p`."""
    async with (
        Ledger.open(folder / "parent.db", "top") as ledger,
        Receiver(ledger, folder / "p", limits=Limits(**limits)) as receiver,
    ):
        yield ledger, receiver


async def reported(ledger: Ledger) -> list[tuple[str, str]]:
    return [(entry.pod_name, entry.outcome) async for entry in ledger.entries()]


async def test_many_items_share_one_connection(short: Path) -> None:
    async with owner_at(short) as (above, receiver), fresh_ledger() as ledger:
        await ledger.configure(parent_socket=str(short / "p"))
        await ledger.append_many([spawned(f"p{number:03}") for number in range(450)])
        async with Outbox(ledger, retry=FAST_RETRY) as outbox:
            assert await outbox.drain(within_s=20) == 0
            reception = receiver._reception
            assert reception is not None
            assert len(reception._connections) == 1
        assert await reported(above) == [(f"p{number:03}", "applied") for number in range(450)]


async def test_item_is_sent_only_once_it_is_acknowledged(short: Path) -> None:
    async with owner_at(short) as (above, _), fresh_ledger() as ledger:
        await ledger.configure(parent_socket=str(short / "p"))
        async with Outbox(ledger, retry=FAST_RETRY):
            with connected(above.database.path) as database:
                database.execute("BEGIN IMMEDIATE")
                await ledger.append(spawned("a"))
                await wait_until(lambda: _is_stamped(ledger))
                assert await statuses(ledger) == ["pending"]
                database.execute("ROLLBACK")
            await wait_until(lambda: _statuses_are(ledger, "sent"))
        assert await reported(above) == [("a", "applied")]


async def _is_stamped(ledger: Ledger) -> bool:
    [item] = await ledger.outbox_items()
    return '"sequence"' in item.payload


async def test_outboxes_that_are_cancelled_neither_lose_nor_double(short: Path) -> None:
    async with owner_at(short) as (above, _), fresh_ledger() as ledger:
        await ledger.configure(parent_socket=str(short / "p"))
        await ledger.append_many([spawned(f"p{number:03}") for number in range(400)])
        for turns in range(12):
            async with Outbox(ledger, retry=FAST_RETRY), Outbox(ledger, retry=FAST_RETRY):
                for _ in range(turns):
                    await asyncio.sleep(0)
        async with Outbox(ledger, retry=FAST_RETRY) as outbox:
            assert await outbox.drain(within_s=20) == 0
        applied = [name for name, outcome in await reported(above) if outcome == "applied"]
        assert sorted(applied) == [f"p{number:03}" for number in range(400)]
        assert {outcome for _, outcome in await reported(above)} <= {"applied", "duplicate"}


async def test_killed_owner_neither_loses_nor_doubles(short: Path) -> None:
    podledger("init", OWNER, "--parent", short / "p", folder=short)
    async with owner_at(short) as (above, _):
        async with Ledger.open(short / "podledger.db") as ledger:
            await ledger.append_many([spawned(f"p{number:04}") for number in range(1_500)])
        for count in (1, 300, 700):
            with start("serve", "--socket", "own", folder=short) as process:
                await wait_until(partial(_has, above, count))
                process.kill()
        async with Ledger.open(short / "podledger.db") as ledger, Outbox(ledger, retry=FAST_RETRY) as outbox:
            assert await outbox.drain(within_s=20) == 0
        applied = [name for name, outcome in await reported(above) if outcome == "applied"]
        assert applied == [f"p{number:04}" for number in range(1_500)]
        assert {outcome for _, outcome in await reported(above)} <= {"applied", "duplicate"}


async def _has(ledger: Ledger, count: int) -> bool:
    return (await ledger.head()).head_seq >= count


async def test_refused_item_is_reported_and_does_not_block(short: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with owner_at(short, max_frame_bytes=1_000) as (above, _), fresh_ledger() as ledger:
        await ledger.configure(parent_socket=str(short / "p"))
        await ledger.append_many([spawned("a"), spawned("b", "/run/" + "x" * 1_000), spawned("c")])
        async with Outbox(ledger, retry=FAST_RETRY) as outbox:
            assert await outbox.drain(within_s=20) == 0
        assert await statuses(ledger) == ["sent", "refused", "sent"]
        assert "refused a report: longer than 1,000 bytes" in caplog.text
        assert [name for name, _ in await reported(above)] == ["a", "c"]
        path = ledger.database.path
        assert "longer than" in podledger("--db", path, "outbox", "--status", "refused", status=1).out
        assert podledger("--db", path, "outbox", "--discard", 2).out
        assert (await ledger.verify()).ok
