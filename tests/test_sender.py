"""Sending to servers that answer, are slow, hang, are gone or send nonsense."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from podledger.client import background, frames
from podledger.client.delivery import deliver
from podledger.client.sender import fire_and_forget, line_of, send_pod_event
from podledger.core.errors import InvalidEventError, InvalidNameError
from podledger.core.events import Errored, Event, ScopeSubDelegated, ShutDown, TurnEnded
from podledger.core.fields import ScopeRule, Stamp
from podledger.core.protocol import parse_line
from podledger.core.stamps import Stamper, new_incarnation
from tests.given import incarnation
from tests.runner import podledger, podledger_process
from tests.sockets import SNAPSHOT, dead_at, parent_at, silent_at
from tests.waiting import wait_until

GREETING = json.dumps({"event": "snapshot", "data": SNAPSHOT}).encode() + b"\n"
LINE = line_of({"kind": "turn_ended", "pod_name": "child"})
Script = Callable[[socket.socket], object]


@pytest.fixture
def path(short: Path) -> Path:
    return short / "s"


@contextmanager
def scripted(path: Path, script: Script) -> Iterator[list[bytes]]:
    """Run a server that follows `script` with one client; yield what that client sends afterwards."""
    received: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        link, _ = listener.accept()
        with link:
            try:
                script(link)
                while data := link.recv(1 << 16):
                    received.append(data)
            except OSError:
                return

    with silent_at(path) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield received
        thread.join(20)


def greets(*frames: bytes) -> Script:
    return lambda link: link.sendall(b"".join(frames))


class TestDeliver:
    def test_line_alone_is_sent_after_the_snapshot(self, path: Path) -> None:
        with scripted(path, greets(b'{"event":"alert","data":{}}\n', b"\n", GREETING)) as received:
            deliver(path, LINE)
        assert b"".join(received) == LINE

    @pytest.mark.parametrize(
        "snapshot",
        [
            b'{"data":{"entries":[{"event":"alert"}]},"event":"snapshot"}\n',
            b' { "event" : "snapshot" , "data" : {} } \r\n',
            b'{"event":"\\u0073napshot"}\n',
        ],
    )
    def test_snapshot_is_recognised_in_any_spelling(self, path: Path, snapshot: bytes) -> None:
        with scripted(path, greets(snapshot)) as received:
            deliver(path, LINE, timeout_s=2)
        assert b"".join(received) == LINE

    def test_alert_that_quotes_a_snapshot_is_not_one(self, path: Path) -> None:
        alert = json.dumps({"data": {"event": "snapshot", "text": '{"event":"snapshot","data":{}}'}, "event": "alert"})

        def script(link: socket.socket) -> None:
            link.sendall(alert.encode() + b"\n")
            link.settimeout(0.2)
            with pytest.raises(TimeoutError):
                link.recv(1, socket.MSG_PEEK)
            link.settimeout(None)
            link.sendall(GREETING)

        with scripted(path, script) as received:
            deliver(path, LINE)
        assert b"".join(received) == LINE

    @pytest.mark.parametrize("megabytes", [2, 40])
    def test_snapshot_may_be_many_megabytes_long(self, path: Path, megabytes: int) -> None:
        history = json.dumps({"event": "snapshot", "data": {"entries": ["x" * (megabytes << 20)]}}).encode() + b"\n"
        with scripted(path, greets(history)) as received:
            deliver(path, LINE)
        assert b"".join(received) == LINE

    def test_endless_greeting_is_an_error(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(frames, "MAX_GREETING_BYTES", 1 << 20)
        with (
            scripted(path, greets(*[b"x" * (1 << 16)] * 32)),
            pytest.raises(OSError, match="1,048,576 bytes") as failure,
        ):
            deliver(path, LINE)
        assert failure.value.filename == str(path)

    def test_close_before_the_snapshot_is_an_error(self, path: Path) -> None:
        with scripted(path, lambda link: link.shutdown(socket.SHUT_WR)), pytest.raises(ConnectionError) as failure:
            deliver(path, LINE)
        assert str(failure.value) == f"{path}: the server closed before its snapshot"

    @pytest.mark.parametrize(
        "nonsense", [b"HTTP/1.1 400 Bad Request\r\n", b"[1]\n", b"{}\n", b"\xff\n", b"[" * 9999 + b"\n"]
    )
    def test_invalid_frame_is_an_error(self, path: Path, nonsense: bytes) -> None:
        with scripted(path, greets(nonsense)), pytest.raises(ConnectionError, match="something that is not a frame"):
            deliver(path, LINE)

    def test_hanging_server_causes_a_timeout(self, path: Path) -> None:
        with silent_at(path):
            started = time.monotonic()
            with pytest.raises(TimeoutError, match=f"{path}: no progress for 0.1 s"):
                deliver(path, LINE, timeout_s=0.1)
        assert time.monotonic() - started < 2

    def test_dripping_server_causes_a_timeout(self, path: Path) -> None:
        def drip(link: socket.socket) -> None:
            while True:
                link.sendall(b" ")
                time.sleep(0.02)

        with scripted(path, drip):
            started = time.monotonic()
            with pytest.raises(TimeoutError, match="the whole delivery took too long"):
                deliver(path, LINE, timeout_s=0.1)
        assert 1.2 <= time.monotonic() - started < 5

    def test_server_that_never_reads_causes_a_timeout(self, path: Path) -> None:
        def greet_only(link: socket.socket) -> None:
            link.sendall(GREETING)
            done.wait(20)

        done = threading.Event()
        long_line = line_of({"kind": "errored", "pod_name": "child", "message": "x" * (4 << 20)})
        with scripted(path, greet_only):
            with pytest.raises(TimeoutError):
                deliver(path, long_line, timeout_s=0.1)
            done.set()

    def test_error_for_a_missing_server_names_the_socket(self, path: Path) -> None:
        with pytest.raises(FileNotFoundError) as failure:
            deliver(path, LINE)
        assert failure.value.filename == str(path)
        with pytest.raises(ConnectionRefusedError):
            deliver(dead_at(path), LINE)

    def test_sender_waits_for_a_full_queue(self, path: Path) -> None:
        with silent_at(path, backlog=0) as listener:
            senders = [threading.Thread(target=deliver, args=(path, LINE)) for _ in range(5)]
            for sender in senders:
                sender.start()
            received = [self._take_one(listener) for _ in senders]
            for sender in senders:
                sender.join(20)
        assert received == [LINE] * 5

    @staticmethod
    def _take_one(listener: socket.socket) -> bytes:
        link, _ = listener.accept()
        with link:
            link.sendall(GREETING)
            return link.makefile("rb").read()

    def test_path_too_long_for_an_address_is_reached(self, path: Path) -> None:
        folder = path.parent / ("d" * 120)
        folder.mkdir()
        with scripted(path, greets(GREETING)) as received:
            path.rename(folder / "s")
            deliver(folder / "s", LINE)
            (folder / "s").rename(path)
        assert b"".join(received) == LINE

    @pytest.mark.parametrize("name", ["n" * 120, "nul\0"])
    def test_impossible_path_is_an_os_error(self, path: Path, name: str) -> None:
        with pytest.raises(OSError, match=r"too long|null"):
            deliver(path.parent / name, LINE)


class TestLine:
    def test_parser_reads_back_every_event(self) -> None:
        scope = (ScopeRule(target="/w", permission="write"), ScopeRule(target="/r", permission="read", recursive=False))
        events: list[Event] = [
            TurnEnded(pod_name="child"),
            Errored(pod_name="child", message="\0\x1b[31m\n😀"),
            ShutDown(pod_name="child"),
            ScopeSubDelegated(parent_pod="child", sub_pod="gc", sub_socket="/run/gc", scope=scope),
        ]
        for event in events:
            message = parse_line(line_of(event.model_dump(mode="json", exclude_none=True)))
            assert getattr(message, "event", None) == event

    @pytest.mark.parametrize("key", ["pod_name", "parent_pod", "sub_pod"])
    def test_invalid_pod_name_is_an_error(self, key: str) -> None:
        with pytest.raises(InvalidNameError):
            line_of({"kind": "turn_ended", key: "a/b"})

    def test_invalid_unicode_is_an_error(self) -> None:
        with pytest.raises(InvalidEventError):
            line_of({"kind": "errored", "pod_name": "child", "message": os.fsdecode(b"\xff")})


class TestSendPodEvent:
    async def test_event_arrives_with_a_stamp(self, path: Path) -> None:
        stamper = Stamper(new_incarnation())
        async with parent_at(path, history_bytes=2 << 20) as parent:
            await send_pod_event(path, TurnEnded(pod_name="child"), stamper=stamper)
            await wait_until(lambda: parent.events)
        [event] = parent.events
        assert (event["stamp"]["source"], "subject" in event["stamp"]) == (stamper.source, False)
        assert event["stamp"]["sequence"] == 1

    async def test_stamped_event_keeps_its_stamp(self, path: Path) -> None:
        stamp = Stamp(**Stamper(new_incarnation()).stamp(None))
        async with parent_at(path) as parent:
            for _ in range(2):
                await send_pod_event(str(path), ShutDown(pod_name="child", stamp=stamp))
            await wait_until(lambda: len(parent.events) == 2)
        assert [Stamp(**event["stamp"]) for event in parent.events] == [stamp, stamp]

    async def test_sequence_follows_the_order_of_calls(self, path: Path) -> None:
        stamper = Stamper()
        async with parent_at(path) as parent:
            sends = [send_pod_event(path, TurnEnded(pod_name=f"p{n}"), stamper=stamper) for n in range(3)]
            for send in reversed(sends):
                await send
            await wait_until(lambda: len(parent.events) == 3)
        assert {event["pod_name"]: event["stamp"]["sequence"] for event in parent.events} == {"p0": 1, "p1": 2, "p2": 3}

    async def test_hanging_server_does_not_block_the_event_loop(self, path: Path) -> None:
        with silent_at(path):
            sending = asyncio.create_task(send_pod_event(path, TurnEnded(pod_name="child"), timeout_s=0.3))
            ticks = 0
            while not sending.done():
                await asyncio.sleep(0.01)
                ticks += 1
        assert ticks > 10
        with pytest.raises(TimeoutError):
            await sending

    async def test_concurrent_events_all_arrive(self, path: Path) -> None:
        async with parent_at(path) as parent:
            await asyncio.gather(*(send_pod_event(path, TurnEnded(pod_name=f"p{n}")) for n in range(200)))
            await wait_until(lambda: len(parent.events) == 200)
        assert len({event["stamp"]["sequence"] for event in parent.events}) == 200


class TestFireAndForget:
    def test_missing_socket_does_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        fire_and_forget(None, ShutDown(pod_name="child"))
        assert not caplog.records

    async def test_events_for_one_socket_arrive_in_order(self, path: Path) -> None:
        async with parent_at(path) as parent:
            for n in range(50):
                fire_and_forget(path, TurnEnded(pod_name=f"p{n}"))
            await wait_until(lambda: len(parent.events) == 50)
        assert [event["pod_name"] for event in parent.events] == [f"p{n}" for n in range(50)]

    def test_failure_is_one_warning_and_does_not_block(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with silent_at(path), pytest.MonkeyPatch.context() as patch:
            patch.setattr(background, "deliver", lambda path, line: deliver(path, line, timeout_s=0.2))
            started = time.monotonic()
            fire_and_forget(path, ShutDown(pod_name="child"))
            assert time.monotonic() - started < 0.15
            wait_for_background_sender()
        [record] = caplog.records
        assert (record.name, record.levelno) == ("podledger.sender", logging.WARNING)
        assert str(path) in record.getMessage()
        assert "no progress for 0.2 s" in record.getMessage()

    def test_events_beyond_the_limit_are_dropped_with_warnings(
        self, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proceed = threading.Event()
        monkeypatch.setattr(background, "deliver", lambda *_: proceed.wait(20))
        monkeypatch.setattr(background, "MAX_QUEUED", 3)
        for _ in range(10):
            fire_and_forget(path, TurnEnded(pod_name="child"))
        proceed.set()
        wait_for_background_sender()
        assert 6 <= len(caplog.records) <= 7
        assert "3 reports are already waiting" in caplog.records[0].getMessage()

    @pytest.mark.parametrize(
        "ending",
        [
            "fire()",
            "import atexit; atexit.register(fire)",
            "import threading; threading.Thread(target=fire).start()",
            "import os\nif os.fork(): os.wait()\nelse: fire()",
            "fire(); import os\nif os.fork(): os.wait()",
            "import multiprocessing as m; p = m.get_context('fork').Process(target=fire); p.start(); p.join()",
            "import asyncio\nasync def main(): fire()\nasyncio.run(main())",
        ],
        ids=["at-exit", "in-atexit", "thread", "forked-child", "forked-parent", "multiprocessing", "in-a-loop"],
    )
    async def test_event_fired_at_exit_still_arrives(self, path: Path, ending: str) -> None:
        script = (
            "import sys\nfrom podledger import ShutDown, fire_and_forget\n"
            "def fire(): fire_and_forget(sys.argv[1], ShutDown(pod_name='child'))\n"
        )
        async with parent_at(path) as parent:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", script + ending, path)
            assert await asyncio.wait_for(process.wait(), 20) == 0
            await wait_until(lambda: parent.events)
        assert [event["kind"] for event in parent.events] == ["shut_down"]

    def test_hanging_server_delays_exit_only_within_the_limits(self, path: Path) -> None:
        script = (
            "import sys\nfrom podledger import ShutDown, fire_and_forget\n"
            "from podledger.client import background, delivery\n"
            "background.EXIT_GRACE_S = 0.3\n"
            "background.deliver = lambda path, line: delivery.deliver(path, line, timeout_s=0.2)\n"
            "for _ in range(100): fire_and_forget(sys.argv[1], ShutDown(pod_name='child'))\n"
        )
        with silent_at(path, backlog=200):
            started = time.monotonic()
            done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True, timeout=30)
        assert time.monotonic() - started < 10
        assert done.stderr.count(b"was not sent") == 100


def wait_for_background_sender() -> None:
    for thread in threading.enumerate():
        if thread.name == "podledger-fire":
            thread.join(20)


def test_sender_does_not_import_heavy_packages() -> None:
    script = "import sys, podledger.client.sender; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.split()
    assert not {"sqlalchemy", "pydantic", "asyncio", "logging", "concurrent.futures"} & set(loaded)


# `podledger send` inside a pod


async def sent(short: Path, *words: str) -> dict[str, Any]:
    """Send one report by the command, with the variables that a parent passes to a pod; return the event."""
    async with parent_at(short / "p") as parent:
        done = await asyncio.to_thread(
            podledger_process,
            *("send", *words),
            folder=short,
            PODLEDGER_SOCKET=str(parent.path),
            PODLEDGER_POD="coder",
            PODLEDGER_INCARNATION=incarnation(5),
        )
        assert done.status == 0, done.err
        await wait_until(lambda: parent.lines)
        [event] = parent.events
        return dict(event)


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (["turn-ended"], {"kind": "turn_ended", "pod_name": "coder"}),
        (["errored", "3 tests failed"], {"kind": "errored", "pod_name": "coder", "message": "3 tests failed"}),
        (["shut-down", "coder"], {"kind": "shut_down", "pod_name": "coder"}),
        (
            ["scope-sub-delegated", "sub", "/run/sub"],
            {"parent_pod": "coder", "sub_pod": "sub"},
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
async def test_send_takes_socket_and_name_from_the_environment(
    words: list[str], fields: dict[str, str], short: Path
) -> None:
    event = await sent(short, *words)
    assert fields.items() <= event.items()
    assert event["stamp"]["speaker"] == incarnation(5)
    assert event["stamp"].get("subject") == (None if words[0].startswith("scope") else incarnation(5))


async def test_send_about_another_pod_does_not_claim_the_own_incarnation(short: Path) -> None:
    event = await sent(short, "turn-ended", "other")
    assert ("subject" in event["stamp"], event["stamp"]["speaker"]) == (False, incarnation(5))


@pytest.mark.parametrize(
    ("words", "hint"), [(("turn-ended",), "PODLEDGER_SOCKET"), (("s", "turn-ended"), "PODLEDGER_POD")]
)
def test_send_names_the_variable_that_is_missing(words: tuple[str, ...], hint: str, tmp_path: Path) -> None:
    assert hint in podledger("send", *words, folder=tmp_path, status=2).err
