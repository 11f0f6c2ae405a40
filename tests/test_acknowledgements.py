"""Answers to events that ask for one: after the commit, in order, bounded, and only to those who ask."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podledger.client.connection import ReceiverConnection
from podledger.client.delivery import deliver
from podledger.client.frames import Recorded, Refused
from podledger.core.stamps import Stamper, new_incarnation
from podledger.core.strict_json import dumps
from tests.runner import podledger, start
from tests.support import connected
from tests.test_receiver import LIST, receiving
from tests.waiting import wait_until

LIMIT_S = 20


class Sending:
    """A sender whose events ask for an answer."""

    def __init__(self) -> None:
        self._stamper = Stamper(new_incarnation())

    def line(self, *, kind: str = "turn_ended", **fields: Any) -> tuple[str, bytes]:
        """Return the stamp's id and the line of one event."""
        stamp = self._stamper.stamp(None) | {"ack": True}
        event = {"kind": kind, "pod_name": "child", "stamp": stamp} | fields
        return str(stamp["id"]), dumps({"method": "pod_event", "params": event}).encode() + b"\n"

    def lines(self, count: int, **fields: Any) -> tuple[list[str], bytes]:
        """Return the ids and the lines of several events."""
        ids, lines = zip(*(self.line(**fields) for _ in range(count)), strict=True)
        return list(ids), b"".join(lines)


def sent(path: Path, ids: list[str], lines: bytes) -> list[Recorded | Refused]:
    """Send lines on one connection; return their answers."""
    with ReceiverConnection(path) as connection:
        connection.send(lines)
        return list(connection.answers(ids, within_s=LIMIT_S))


async def answers_to(path: Path, ids: list[str], lines: bytes) -> list[Recorded | Refused]:
    """Do the same next to a running event loop."""
    return await asyncio.to_thread(sent, path, ids, lines)


async def test_greeting_offers_acknowledgements_and_relays() -> None:
    async with receiving() as setup:
        with await asyncio.to_thread(ReceiverConnection, setup.receiver.path) as connection:
            assert connection.accepts == {"ack", "relay"}


async def test_answer_names_the_entry() -> None:
    sending = Sending()
    async with receiving() as setup:
        stamp_id, line = sending.line()
        [answer] = await answers_to(setup.receiver.path, [stamp_id], line)
        [entry] = [entry async for entry in setup.ledger.entries()]
    assert answer == Recorded(stamp_id, entry.source or "", 1, entry.seq, entry.outcome)


async def test_repeated_event_is_answered_as_a_duplicate() -> None:
    stamp_id, line = Sending().line(kind="shut_down")
    async with receiving() as setup:
        answers = [await answers_to(setup.receiver.path, [stamp_id], line) for _ in range(2)]
    assert [(answer.seq, answer.outcome) for [answer] in answers if isinstance(answer, Recorded)] == [
        (1, "unknown"),
        (2, "duplicate"),
    ]


async def test_client_that_does_not_ask_is_not_answered() -> None:
    asking, stamp = Sending(), Stamper(new_incarnation()).stamp(None)
    events = [
        {"kind": "turn_ended", "pod_name": "child"},
        {"kind": "turn_ended", "pod_name": "child", "stamp": stamp},
        {"kind": "turn_ended", "pod_name": "child", "stamp": stamp | {"ack": False}},
        {"kind": "turn_ended", "pod_name": "child", "stamp": stamp | {"ack": 1}},
    ]
    async with receiving() as setup:
        async with setup.client() as client:
            answer = await client.ask(
                *(json.dumps({"method": "pod_event", "params": event}).encode() for event in events), LIST
            )
            assert answer["event"] == "pods_listed"
        assert asking.line()[0] not in str(answer)
        assert len(await setup.names(4)) == 4


async def test_thousand_events_in_flight_are_answered_in_order() -> None:
    ids, lines = Sending().lines(1_000)
    async with receiving() as setup:
        answers = await answers_to(setup.receiver.path, ids, lines)
    assert [answer.id for answer in answers] == ids
    assert [answer.seq for answer in answers if isinstance(answer, Recorded)] == list(range(1, 1_001))


async def test_refusals_take_their_turn_among_the_answers() -> None:
    sending = Sending()
    (first, one), (second, two), (third, three) = sending.line(), sending.line(kind="nonsense"), sending.line()
    async with receiving(max_frame_bytes=1 << 12) as setup:
        too_long = sending.line(message="x" * (1 << 13))
        answers = await answers_to(
            setup.receiver.path, [first, second, too_long[0], third], one + two + too_long[1] + three
        )
        assert len(await setup.rejected(2)) == 2
    assert [answer.id for answer in answers] == [first, second, too_long[0], third]
    assert [type(answer) for answer in answers] == [Recorded, Refused, Refused, Recorded]


async def test_refusal_states_the_id_of_a_readable_stamp() -> None:
    stamp_id, line = Sending().line(pod_name="a/b")
    async with receiving() as setup, setup.client() as client:
        answer = await client.ask(line.rstrip())
    assert (answer["event"], answer["data"]["id"]) == ("error", stamp_id)


async def test_client_that_sends_no_more_is_still_answered() -> None:
    ids, lines = Sending().lines(100)

    def half_close(path: Path) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(lines)
            client.shutdown(socket.SHUT_WR)
            return client.makefile("rb").read()

    async with receiving() as setup:
        read = await asyncio.to_thread(half_close, setup.receiver.path)
    assert [json.loads(line)["data"].get("id") for line in read.splitlines()[1:]] == ids


async def test_client_that_left_loses_only_the_answer() -> None:
    async with receiving() as setup:
        for _ in range(10):
            await asyncio.to_thread(deliver, setup.receiver.path, Sending().line()[1])
        assert len(await setup.names(10)) == 10


async def test_answers_that_nobody_reads_stop_the_reading() -> None:
    ids, lines = Sending().lines(20_000)
    async with receiving(max_queued=400) as setup:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(setup.receiver.path))
            client.setblocking(False)
            rest = memoryview(lines)

            def push() -> bool:
                nonlocal rest
                with contextlib.suppress(BlockingIOError):
                    while rest:
                        rest = rest[client.send(rest[: 1 << 16]) :]
                return unread() > 0

            def unread() -> int:
                assert setup.receiver._reception is not None
                return sum(len(each.outgoing) for each in setup.receiver._reception._connections)

            await wait_until(push)
            assert rest, "the receiver reads while its answers are not read"
            assert 0 < unread() < 1 << 18
            client.setblocking(True)
            writer = threading.Thread(target=client.sendall, args=(rest,))
            writer.start()
            read = await asyncio.to_thread(lambda: list(itertools.islice(client.makefile("rb"), 20_001)))
            writer.join()
    assert [json.loads(line)["data"].get("id") for line in read[1:]] == ids


async def test_client_that_reads_nothing_for_long_is_closed() -> None:
    _ids, lines = Sending().lines(3_000)
    async with receiving(max_unsent_bytes=1, idle_timeout_s=60) as setup:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(setup.receiver.path))
            with contextlib.suppress(ConnectionError):
                await asyncio.to_thread(client.sendall, lines)
            reception = setup.receiver._reception
            assert reception is not None
            await wait_until(lambda: not reception._connections)
        assert (await setup.ledger.head()).head_seq > 0


async def test_plain_client_that_reads_no_errors_may_go_on_sending() -> None:
    async with receiving() as setup, setup.client() as client:
        await client.send(
            *[b'{"method":"nonsense"}' * 10] * 2_000,
            b'{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"child"}}',
        )
        assert await setup.names(1) == ["child"]


@pytest.fixture
def serve(short: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that serves a ledger on the socket `s`."""
    podledger("init", "root", folder=short)
    with serving(short) as process:
        yield process


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = start("serve", "--socket", "s", folder=folder)
    with process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield process
        process.kill()


def recorded_ids(folder: Path) -> list[str]:
    """Return the stamps' ids of the log."""
    with connected(folder / "podledger.db") as connection:
        return [stamp_id for (stamp_id,) in connection.execute("SELECT stamp_id FROM events ORDER BY seq")]


def test_nothing_is_answered_before_the_commit(short: Path, serve: subprocess.Popen[str]) -> None:
    stamp_id, line = Sending().line()
    with ReceiverConnection(short / "s") as connection:
        with connected(short / "podledger.db") as database:
            database.execute("BEGIN IMMEDIATE")
            connection.send(line)
            with pytest.raises(TimeoutError):
                list(connection.answers([stamp_id], within_s=0.3))
            serve.kill()
            serve.wait()
        with pytest.raises(ConnectionError):
            list(connection.answers([stamp_id], within_s=LIMIT_S))
    assert recorded_ids(short) == []


def test_every_acknowledged_event_survives_a_kill(short: Path, serve: subprocess.Popen[str]) -> None:
    ids, lines = Sending().lines(4_000)
    answered: list[str] = []
    with ReceiverConnection(short / "s") as connection:
        sender = threading.Thread(target=lambda: _suppressed(connection, lines))
        sender.start()
        sender.join()
        with contextlib.suppress(OSError):
            for answer in connection.answers(ids, within_s=LIMIT_S):
                answered.append(answer.id)
                if len(answered) == 200:
                    serve.kill()
    assert len(answered) >= 200
    assert set(answered) <= set(recorded_ids(short))


def _suppressed(connection: ReceiverConnection, lines: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.send(lines)


def test_stopping_receiver_answers_what_it_has_read(short: Path, serve: subprocess.Popen[str]) -> None:
    ids, lines = Sending().lines(2_000)
    with ReceiverConnection(short / "s") as connection:
        connection.send(lines)
        serve.send_signal(signal.SIGTERM)
        answered = []
        with contextlib.suppress(ConnectionError):
            answered += [answer.id for answer in connection.answers(ids, within_s=LIMIT_S)]
    assert serve.wait(LIMIT_S) == 0
    assert answered == recorded_ids(short) == ids
