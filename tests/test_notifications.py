"""What the agent is told: the visible events after its cursor, each in one line, no shutdown twice."""

from __future__ import annotations

from datetime import UTC

import pytest

from podledger.core.errors import InvalidMomentError, InvalidNameError
from podledger.core.events import Errored
from podledger.ledger import Ledger
from tests.support import (
    connected,
    delegated,
    exited,
    fresh_ledger,
    reclaimed,
    spawned,
    stamped,
    stopped,
    turned,
    unreachable,
)


async def lines(ledger: Ledger, consumer: str = "agent") -> list[str]:
    return [notification.line for notification in await ledger.notifications(consumer)]


async def seqs(ledger: Ledger, consumer: str = "agent") -> list[int]:
    return [notification.seq for notification in await ledger.notifications(consumer)]


async def test_the_agent_is_told_of_turns_errors_and_shutdowns() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), Errored(pod_name="p", message="no"), stopped("p")])
        assert await lines(ledger) == [
            "Pod `p` finished a turn.",
            "Pod `p` reported an error: no",
            "Pod `p` has stopped.",
        ]


async def test_it_is_never_told_of_a_delegation_nor_of_the_owner_s_own_facts() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([delegated("q"), spawned("p"), unreachable("p"), reclaimed("p"), exited("q")])
        assert await lines(ledger) == []


async def test_a_duplicate_shutdown_is_not_told_twice() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), stopped("p"), stopped("p"), spawned("p"), stopped("p"), stopped("p")])
        assert await seqs(ledger) == [2, 5]


async def test_a_shutdown_is_told_even_if_the_pod_was_given_up() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), reclaimed("p"), stopped("p"), stopped("p")])
        assert await seqs(ledger) == [3]


async def test_reports_that_change_nothing_are_told_all_the_same() -> None:
    """Unknown, late, revived: what a pod says of itself is for the agent to judge."""
    async with fresh_ledger() as ledger:
        old = stamped(turned("p"), 3)
        await ledger.append_many([turned("nobody"), stamped(delegated("p"), 5), old, reclaimed("p"), turned("p")])
        assert await seqs(ledger) == [1, 3, 5]


async def test_a_line_is_one_line_whatever_a_tool_printed() -> None:
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


async def test_a_cursor_never_goes_back() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 3)
        for seq in (2, 1, 0):
            await ledger.acknowledge(seq)
        assert await seqs(ledger) == [3]
        assert (await ledger.verify()).ok


async def test_a_cursor_outlives_the_process() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p")] * 2)
        await ledger.acknowledge(1)
        async with Ledger.open(ledger.database.path) as another:
            assert await seqs(another) == [2]


async def test_a_cursor_beyond_the_log_is_refused() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(turned("p"))
        for seq in (2, -1):
            with pytest.raises(InvalidMomentError):
                await ledger.acknowledge(seq)
        assert await seqs(ledger) == [1]


async def test_a_consumer_s_name_is_checked() -> None:
    async with fresh_ledger() as ledger:
        for consumer in ("", "a/b", "a\nb"):
            with pytest.raises(InvalidNameError, match="consumer"):
                await ledger.notifications(consumer)
            with pytest.raises(InvalidNameError, match="consumer"):
                await ledger.acknowledge(0, consumer)


async def test_many_are_read_a_page_at_a_time() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([turned("p"), spawned("p")] * 10)
        assert len(await ledger.notifications()) == 10
        first = await ledger.notifications(limit=4)
        second = await ledger.notifications(after=first[-1].seq, limit=4)
        assert [told.seq for told in (*first, *second)] == [1, 3, 5, 7, 9, 11, 13, 15]


async def test_reading_moves_nothing() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(turned("p"))
        assert await lines(ledger) == await lines(ledger)
        with connected(ledger.database.path) as stranger:
            assert stranger.execute("SELECT count(*) FROM consumers").fetchone() == (0,)


async def test_a_notification_says_when_and_of_whom() -> None:
    async with fresh_ledger(clock=lambda: 1_000_000_000) as ledger:
        await ledger.append(turned("p"))
        (told,) = await ledger.notifications()
        assert told.recorded_at.tzinfo is UTC
        assert told.as_json() == {
            "seq": 1,
            "recorded_at": "1970-01-01T00:00:01.000000Z",
            "kind": "turn_ended",
            "pod_name": "p",
            "line": "Pod `p` finished a turn.",
        }


async def test_the_ledgers_of_one_database_tell_their_own() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(turned("p"))
        async with Ledger.open(ledger.database.path, "other") as other:
            await other.append_many([turned("q"), turned("q")])
            await other.acknowledge(1)
            assert (await seqs(ledger), await seqs(other)) == ([1], [2])
