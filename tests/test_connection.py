"""One connection to a receiver: its greeting, its answers, and the ends that it can come to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from podledger.client.connection import ReceiverConnection
from podledger.client.frames import Recorded, Refused
from tests.given import incarnation
from tests.sockets import SNAPSHOT, silent_at

OFFER = {"version": 1, "accepts": ["ack", "relay"]}
LINE = b'{"method":"pod_event"}\n'


@pytest.fixture
def path(short: Path) -> Path:
    return short / "s"


def greeting(offer: object = OFFER, *, entries: int = 0) -> bytes:
    """Return a snapshot whose greeting holds an offer."""
    greets: Any = SNAPSHOT["greeting"]
    data = SNAPSHOT | {"entries": ["x" * entries], "greeting": greets | {"podledger": offer}}
    return frame("snapshot", data)


def frame(event: str, data: object) -> bytes:
    """Return one frame of a server."""
    return json.dumps({"event": event, "data": data}).encode() + b"\n"


def recorded(number: int, **fields: object) -> bytes:
    """Return the acknowledgement of the event `number`."""
    data = {"id": f"id-{number}", "source": incarnation(1), "sequence": number, "seq": 100 + number, "outcome": "noted"}
    return frame("pod_event_recorded", data | fields)


def acknowledged(number: int) -> Recorded:
    """Return what the client makes of `recorded`."""
    return Recorded(f"id-{number}", incarnation(1), number, 100 + number, "noted")


@contextmanager
def server(path: Path, script: Callable[[socket.socket], object]) -> Iterator[None]:
    """Run a server that follows `script` with one client, then closes."""

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            script(accepted)

    with silent_at(path) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield
        thread.join(20)


def after_a_line(*sent: bytes) -> Callable[[socket.socket], object]:
    """Return a script that greets, reads a line and sends these bytes."""

    def script(accepted: socket.socket) -> None:
        accepted.sendall(greeting())
        accepted.recv(1 << 16)
        for data in sent:
            accepted.sendall(data)

    return script


@pytest.mark.parametrize(
    ("offer", "accepted"),
    [
        (OFFER, {"ack", "relay"}),
        (OFFER | {"accepts": ["ack", "later"]}, {"ack", "later"}),
        (OFFER | {"version": 2}, set()),
        (OFFER | {"version": True}, set()),
        (OFFER | {"version": "1"}, set()),
        (OFFER | {"accepts": "ack"}, set()),
        (OFFER | {"accepts": ["ack", 1]}, set()),
        ({"version": 1}, set()),
        (["ack"], set()),
        (None, set()),
    ],
)
def test_only_a_well_formed_offer_counts(path: Path, offer: object, accepted: set[str]) -> None:
    with server(path, lambda link: link.sendall(greeting(offer))), ReceiverConnection(path) as connection:
        assert connection.accepts == accepted


def test_long_snapshot_without_an_offer_is_not_parsed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed"))
    without = frame("snapshot", SNAPSHOT | {"entries": ["x" * (4 << 20)]})
    with server(path, lambda link: link.sendall(without)), ReceiverConnection(path) as connection:
        assert connection._snapshot == b""


def test_long_snapshot_may_hold_an_offer(path: Path) -> None:
    with (
        server(path, lambda link: link.sendall(greeting(entries=4 << 20))),
        ReceiverConnection(path) as connection,
    ):
        assert connection.accepts == {"ack", "relay"}


def test_answers_come_as_they_arrive_between_other_frames(path: Path) -> None:
    sent = [
        frame("status", {}),
        recorded(1),
        b"\n",
        frame("alert", []),
        recorded(2)[:40],
        recorded(2)[40:],
        recorded(3),
    ]
    with server(path, after_a_line(*sent)), ReceiverConnection(path) as connection:
        connection.send(LINE)
        assert list(connection.answers(["id-1", "id-2", "id-3"], within_s=10)) == [*map(acknowledged, (1, 2, 3))]


def test_refusal_names_its_event_or_means_the_first_one(path: Path) -> None:
    named = frame("error", {"code": "invalid_request", "message": "no", "id": "id-2"})
    unnamed = frame("error", {"code": "invalid_request", "message": "too long"})
    other = frame("error", {"code": "internal", "message": "not about an event"})
    with server(path, after_a_line(other, named, unnamed)), ReceiverConnection(path) as connection:
        connection.send(LINE)
        answers = list(connection.answers(["id-1", "id-2"], within_s=10))
    assert answers == [Refused("id-2", "no"), Refused("id-1", "too long")]


@pytest.mark.parametrize(
    "malformed", [recorded(1, seq="7"), recorded(1, id=None), recorded(1, sequence=True), frame("error", 3)]
)
def test_malformed_answer_is_skipped(path: Path, malformed: bytes) -> None:
    with server(path, after_a_line(malformed, recorded(1))), ReceiverConnection(path) as connection:
        connection.send(LINE)
        assert list(connection.answers(["id-1"], within_s=10)) == [acknowledged(1)]


def test_missing_answer_is_a_timeout_that_names_the_socket(path: Path) -> None:
    done = threading.Event()

    def greet_only(accepted: socket.socket) -> None:
        accepted.sendall(greeting())
        done.wait(20)

    with server(path, greet_only), ReceiverConnection(path) as connection:
        with pytest.raises(TimeoutError, match=f"{path}: no answer within 0.05 s"):
            list(connection.answers(["id-1"], within_s=0.05))
        done.set()


def test_answers_before_the_end_are_yielded(path: Path) -> None:
    with server(path, after_a_line(recorded(1))), ReceiverConnection(path) as connection:
        connection.send(LINE)
        answers = connection.answers(["id-1", "id-2"], within_s=10)
        assert next(answers) == acknowledged(1)
        with pytest.raises(ConnectionError, match=f"{path}: the server closed the connection"):
            next(answers)


def test_answer_is_readable_after_a_send_that_failed(path: Path) -> None:
    with server(path, after_a_line(recorded(1))):
        connection = ReceiverConnection(path)
        connection.send(LINE)
    with connection:
        with pytest.raises(ConnectionError):
            connection.send(LINE)
        assert list(connection.answers(["id-1"], within_s=10)) == [acknowledged(1)]


def test_sending_reads_answers_so_that_neither_side_blocks(path: Path) -> None:
    count = 5_000

    def answer_each_line(accepted: socket.socket) -> None:
        accepted.sendall(greeting())
        for number, _ in zip(range(count), accepted.makefile("rb"), strict=False):
            accepted.sendall(recorded(number))

    with server(path, answer_each_line), ReceiverConnection(path) as connection:
        connection.send(LINE.rjust(200) * count)
        answers = list(connection.answers([f"id-{number}" for number in range(count)], within_s=20))
    assert answers == [acknowledged(number) for number in range(count)]


def test_flood_of_answers_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podledger.client.connection.MAX_ANSWERS", 10)
    with server(path, after_a_line(recorded(2) * 100)), ReceiverConnection(path) as connection:
        connection.send(LINE)
        with pytest.raises(OSError, match="more than 10 answers"):
            list(connection.answers(["id-1"], within_s=10))
