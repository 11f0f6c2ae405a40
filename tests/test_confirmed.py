"""Senders that wait for the receiver's answer: one report, the command, and a held connection."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from podledger import EventSender, Ledger, Receiver, Recorded, ShutDown, Stamper, TurnEnded, new_incarnation
from podledger.client import background, held
from podledger.client.sender import send_pod_event
from podledger.core.events import ScopeSubDelegated
from tests.runner import podledger, podledger_process, start
from tests.sockets import parent_at, silent_at
from tests.support import connected
from tests.test_receiver import receiving
from tests.waiting import wait_until

TURN = TurnEnded(pod_name="child")
WITHIN_S = 20


# `send_pod_event(…, confirm=True)`


async def test_confirmed_send_returns_the_outcome() -> None:
    async with receiving() as setup:
        recorded = await send_pod_event(setup.receiver.path, TURN, confirm=True)
        [entry] = [entry async for entry in setup.ledger.entries()]
    assert recorded is not None
    assert (recorded.id, recorded.seq, recorded.outcome) == (entry.stamp_id, 1, "unknown")


async def test_confirmed_send_needs_a_receiver_that_offers_it(short: Path) -> None:
    async with parent_at(short / "p") as parent:
        with pytest.raises(OSError, match="offers no acknowledgements, so nothing was sent") as failure:
            await send_pod_event(short / "p", TURN, confirm=True)
        assert (failure.value.errno, parent.lines) == (errno.EOPNOTSUPP, [])


async def test_confirmed_send_fails_without_an_answer_in_time() -> None:
    async with receiving(busy_timeout_s=0.1) as setup:
        with connected(setup.folder / "l.db") as database:
            database.execute("BEGIN IMMEDIATE")
            with pytest.raises(TimeoutError, match=r"no answer within 0.2 s"):
                await send_pod_event(setup.receiver.path, TURN, confirm=True, timeout_s=0.2)
            database.execute("ROLLBACK")
        assert await setup.names(1) == ["child"]


async def test_confirmed_send_of_a_refused_event_fails() -> None:
    async with receiving(max_frame_bytes=256) as setup:
        event = ScopeSubDelegated(parent_pod="a", sub_pod="b", sub_socket="x" * 300, scope=())
        with pytest.raises(OSError, match="the receiver refused the event: longer than 256 bytes") as failure:
            await send_pod_event(setup.receiver.path, event, confirm=True)
        assert failure.value.errno == errno.EBADMSG


# `podledger send --confirm`


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that serves the ledger of `root` on the socket `s`."""
    with start("serve", "--socket", "s", folder=folder) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield process
        process.kill()


def test_command_prints_the_confirmed_outcome(short: Path) -> None:
    podledger("init", "root", folder=short)
    with serving(short):
        text = podledger("send", "s", "turn-ended", "child", "--confirm", folder=short).out
        found = podledger("send", "s", "turn-ended", "child", "--confirm", "--json", folder=short).json()
    assert text == "turn_ended child: unknown at seq 1\n"
    assert (found["recorded"], found["sent"]["stamp"]["ack"]) == ({"seq": 2, "outcome": "unknown"}, True)


async def test_command_fails_if_the_receiver_cannot_confirm(short: Path) -> None:
    async with parent_at(short / "p"):
        failed = await asyncio.to_thread(
            podledger_process, "send", "p", "turn-ended", "child", "--confirm", folder=short, status=1
        )
    assert "p: the receiver offers no acknowledgements, so nothing was sent" in failed.err
    assert "without --confirm" in failed.err


def test_command_confirms_only_stamped_reports(short: Path) -> None:
    assert (
        "--no-stamp" in podledger("send", "s", "turn-ended", "a", "--confirm", "--no-stamp", folder=short, status=2).err
    )


# `EventSender`


async def test_thousands_of_events_in_flight_are_recorded_in_order() -> None:
    async with receiving() as setup, EventSender(setup.receiver.path) as sender:
        sent = [sender.send(TurnEnded(pod_name=f"p{number}")) for number in range(3_000)]
        recorded = await asyncio.gather(*sent)
        names = await setup.names(3_000)
        connections = setup.receiver._reception
        assert connections is not None
        assert len(connections._connections) == 1
    assert [each.seq for each in recorded] == list(range(1, 3_001))
    assert names == [f"p{number}" for number in range(3_000)]


async def test_leaving_the_context_waits_for_every_event() -> None:
    async with receiving() as setup:
        async with EventSender(setup.receiver.path) as sender:
            sent = [sender.send(TURN) for _ in range(100)]
        assert all(each.done() and each.exception() is None for each in sent)
        assert (await setup.ledger.head()).head_seq == 100


async def test_sender_waits_for_a_receiver_that_starts_later(short: Path) -> None:
    async with EventSender(short / "s") as sender, Ledger.open(short / "l.db", "root") as ledger:
        sent = sender.send(TURN)
        await wait_until(lambda: sender._failures > 2)
        async with Receiver(ledger, short / "s"):
            assert (await asyncio.wait_for(sent, WITHIN_S)).seq == 1


async def test_events_survive_receivers_that_are_killed(short: Path) -> None:
    podledger("init", "root", folder=short)
    sent: list[asyncio.Future[Recorded]] = []
    async with EventSender(short / "s", close_timeout_s=WITHIN_S) as sender:
        for _ in range(4):
            with serving(short) as process:
                sent += [sender.send(TURN) for _ in range(1_000)]
                await asyncio.wait(sent[-1_000:-800])
                process.kill()
        with serving(short):
            recorded = await asyncio.wait_for(asyncio.gather(*sent), WITHIN_S)
    with connected(short / "podledger.db") as database:
        [(count, highest)] = database.execute(
            "SELECT count(*), max(sequence) FROM events WHERE outcome <> 'duplicate'"
        ).fetchall()
        sequences = [
            row for (row,) in database.execute("SELECT sequence FROM events WHERE outcome <> 'duplicate' ORDER BY seq")
        ]
    assert (count, highest - sequences[0] + 1) == (4_000, 4_000)
    assert sequences == sorted(sequences)
    assert len({each.id for each in recorded}) == 4_000


async def test_receiver_that_offers_nothing_fails_every_event(short: Path) -> None:
    async with parent_at(short / "p"), EventSender(short / "p") as sender:
        for sent in [sender.send(TURN), sender.send(TURN)]:
            with pytest.raises(OSError, match="offers no acknowledgements"):
                await sent


async def test_refused_event_fails_and_the_others_are_recorded() -> None:
    async with receiving(max_frame_bytes=512) as setup, EventSender(setup.receiver.path) as sender:
        large = ScopeSubDelegated(parent_pod="a", sub_pod="b", sub_socket="x" * 600, scope=())
        before, refused, after = sender.send(TURN), sender.send(large), sender.send(ShutDown(pod_name="child"))
        with pytest.raises(OSError, match="the receiver refused the event"):
            await refused
        assert [(await before).seq, (await after).seq] == [1, 2]


async def test_unacknowledged_events_fail_when_the_sender_closes(short: Path) -> None:
    with silent_at(short / "p"):
        async with EventSender(short / "p", close_timeout_s=0.1) as sender:
            sent = sender.send(TURN)
        with pytest.raises(OSError, match="not acknowledged when the sender closed"):
            await sent
        with pytest.raises(OSError, match="the sender is not open"):
            sender.send(TURN)


async def test_events_in_flight_are_bounded(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "MAX_QUEUED", 2)
    async with EventSender(short / "p", close_timeout_s=0) as sender:
        sent = [sender.send(TURN), sender.send(TURN)]
        with pytest.raises(OSError, match="2 events are not acknowledged yet"):
            sender.send(TURN)
    assert all(each.exception() for each in sent)


async def test_idle_connection_that_was_closed_is_opened_again() -> None:
    stamper = Stamper(new_incarnation())
    async with receiving(idle_timeout_s=0.2) as setup, EventSender(setup.receiver.path, stamper=stamper) as sender:
        assert (await sender.send(TURN)).sequence == 1
        reception = setup.receiver._reception
        assert reception is not None
        await wait_until(lambda: not reception._connections)
        assert (await sender.send(TURN)).sequence == 2
        assert sender._failures == 0


def test_exchange_of_an_aborted_connection_sends_nothing(short: Path) -> None:
    connection = held.HeldConnection(short / "s")
    connection.abort()
    exchange = connection.exchange({"id": b"line\n"})
    assert exchange.answers == []
    assert exchange.error is not None
    assert exchange.error.errno == errno.ESHUTDOWN
