"""Notifications: the visible events after a consumer's cursor, each as one line, no shutdown twice."""

from __future__ import annotations

from datetime import UTC

import pytest

from podledger.core.errors import InvalidMomentError, InvalidNameError
from podledger.core.events import Errored
from podledger.ledger import Ledger
from tests.given import delegated, exited, reclaimed, spawned, stamped, stopped, turned, unreachable
from tests.support import connected, fresh_ledger


async def lines(ledger: Ledger, consumer: str = "agent") -> list[str]:
    return [notification.line for notification in await ledger.notifications(consumer)]


async def seqs(ledger: Ledger, consumer: str = "agent") -> list[int]:
    return [notification.seq for notification in await ledger.notifications(consumer)]


async def test_turns_errors_and_shutdowns_are_notified() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), Errored(pod_name="p", message="no"), stopped("p")])
        assert await lines(ledger) == [
            "Pod `p` finished a turn.",
            "Pod `p` reported an error: no",
            "Pod `p` has stopped.",
        ]


async def test_delegations_and_local_facts_are_not_notified() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([delegated("q"), spawned("p"), unreachable("p"), reclaimed("p"), exited("q")])
        assert await lines(ledger) == []


async def test_duplicate_shutdown_is_notified_once() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), stopped("p"), stopped("p"), spawned("p"), stopped("p"), stopped("p")])
        assert await seqs(ledger) == [2, 5]


async def test_shutdown_after_a_reclaim_is_notified() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), reclaimed("p"), stopped("p"), stopped("p")])
        assert await seqs(ledger) == [3]


async def test_reports_that_change_nothing_are_notified() -> None:
    """A pod's report about itself can be unknown, late or a revival. The agent judges it."""
    async with fresh_ledger() as ledger:
        old = stamped(turned("p"), 3)
        await ledger.append_many([turned("nobody"), stamped(delegated("p"), 5), old, reclaimed("p"), turned("p")])
        assert await seqs(ledger) == [1, 3, 5]


async def test_notification_is_always_one_line() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(Errored(pod_name="p", message="first\nsecond\x1b[2J\u202e" + "x" * 10_000))
        (line,) = await lines(ledger)
        assert line.isprintable()
        assert line.startswith("Pod `p` reported an error: first\\nsecond\\x1b[2J")
        assert len(line) < 5_000


async def test_each_consumer_has_its_own_cursor() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 3)
        await ledger.acknowledge(2, "one")
        assert (await seqs(ledger, "one"), await seqs(ledger, "two")) == ([3], [1, 2, 3])
        await ledger.acknowledge(3, "one")
        assert await seqs(ledger, "one") == []


async def test_cursor_never_goes_back() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 3)
        for seq in (2, 1, 0):
            await ledger.acknowledge(seq)
        assert await seqs(ledger) == [3]
        assert (await ledger.verify()).ok


async def test_cursor_survives_a_restart() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 2)
        await ledger.acknowledge(1)
        async with Ledger.open(ledger.database.path) as another:
            assert await seqs(another) == [2]


async def test_cursor_beyond_the_log_is_refused() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(turned("p"))
        for seq in (2, -1):
            with pytest.raises(InvalidMomentError):
                await ledger.acknowledge(seq)
        assert await seqs(ledger) == [1]


async def test_consumer_name_is_checked() -> None:
    async with fresh_ledger() as ledger:
        for consumer in ("", "a/b", "a\nb"):
            with pytest.raises(InvalidNameError, match="consumer"):
                await ledger.notifications(consumer)
            with pytest.raises(InvalidNameError, match="consumer"):
                await ledger.acknowledge(0, consumer)


async def test_notifications_are_read_in_pages() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p"), spawned("p")] * 10)
        assert len(await ledger.notifications()) == 10
        first = await ledger.notifications(limit=4)
        second = await ledger.notifications(after=first[-1].seq, limit=4)
        assert [notification.seq for notification in (*first, *second)] == [1, 3, 5, 7, 9, 11, 13, 15]


async def test_reading_moves_no_cursor() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(turned("p"))
        assert await lines(ledger) == await lines(ledger)
        with connected(ledger.database.path) as connection:
            assert connection.execute("SELECT count(*) FROM consumers").fetchone() == (0,)


async def test_notification_names_its_time_and_pod() -> None:
    async with fresh_ledger(clock=lambda: 1_000_000_000) as ledger:
        await ledger.append(turned("p"))
        (notification,) = await ledger.notifications()
        assert notification.recorded_at.tzinfo is UTC
        assert notification.as_json() == {
            "seq": 1,
            "recorded_at": "1970-01-01T00:00:01.000000Z",
            "kind": "turn_ended",
            "pod_name": "p",
            "line": "Pod `p` finished a turn.",
        }


async def test_each_ledger_has_its_own_notifications() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(turned("p"))
        async with Ledger.open(ledger.database.path, "other") as other:
            await other.append_many([turned("q"), turned("q")])
            await other.acknowledge(1)
            assert (await seqs(ledger), await seqs(other)) == ([1], [2])
