"""The receiver: its answers, the lines that it keeps, how it stops, and how it behaves while storage fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from podledger import Ledger, PodSpawned, Receiver, Sender, ShutDown, TurnEnded, send_pod_event
from podledger.client.sender import line_of
from podledger.core.errors import SocketError
from podledger.server.framing import KEPT_BYTES
from podledger.server.limits import Limits
from podledger.store.log import Rejected
from tests.sockets import short_folder
from tests.waiting import wait_until

TURN = b'{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"child"}}'
LIST = b'{"method":"list_pods"}'
US = Sender(os.getpid(), os.geteuid(), os.getegid())


class Setup:
    """A receiver for a ledger on disk, and clients of it."""

    def __init__(self, folder: Path, ledger: Ledger, receiver: Receiver) -> None:
        self.folder = folder
        self.ledger = ledger
        self.receiver = receiver

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client that has read the snapshot."""
        reader, writer = await asyncio.open_unix_connection(self.receiver.path, limit=64 << 20)
        client = Client(reader, writer)
        try:
            client.snapshot = await client.answer()
            yield client
        finally:
            writer.close()

    async def send(self, *lines: bytes) -> None:
        """Send lines on one connection, and close it."""
        async with self.client() as client:
            await client.send(*lines)

    async def names(self, count: int) -> list[str]:
        """Wait for `count` events; return the names of their pods."""
        entries = await self._when(count, self._entries)
        return [entry.pod_name for entry in entries]

    async def rejected(self, count: int) -> list[Rejected]:
        """Wait for `count` rejected lines, and return them."""
        return await self._when(count, self.ledger.rejected)

    async def _entries(self) -> list[Any]:
        return [entry async for entry in self.ledger.entries()]

    async def _when(self, count: int, read: Any) -> list[Any]:
        async with asyncio.timeout(20):
            while len(found := await read()) < count:
                await asyncio.sleep(0.01)
        assert len(found) == count
        return list(found)


class Client:
    """One connection to a receiver."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.snapshot: dict[str, Any] = {}

    async def send(self, *lines: bytes) -> None:
        self.writer.write(b"".join(line + b"\n" for line in lines))
        await self.writer.drain()

    async def answer(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self.reader.readline(), 20)
        assert line.endswith(b"\n"), "the receiver closed the connection"
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    async def ask(self, *lines: bytes) -> dict[str, Any]:
        await self.send(*lines)
        return await self.answer()

    async def end(self) -> bytes:
        """Return what arrives until the receiver closes the connection."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), 20)
        return b""


@contextlib.asynccontextmanager
async def receiving(*, busy_timeout_s: float = 5.0, **limits: Any) -> AsyncIterator[Setup]:
    with short_folder() as folder:
        async with (
            Ledger.open(folder / "l.db", "root", busy_timeout_s=busy_timeout_s) as ledger,
            Receiver(ledger, folder / "s", limits=Limits(**limits)) as receiver,
        ):
            yield Setup(folder, ledger, receiver)


def event(**fields: Any) -> bytes:
    return json.dumps({"method": "pod_event", "params": fields}).encode()


def turn(name: str) -> bytes:
    return event(kind="turn_ended", pod_name=name)


def send_and_leave(path: Path, lines: list[bytes]) -> None:
    """Send lines and close the connection, without reading anything."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        link.sendall(b"".join(line + b"\n" for line in lines))


def send_turn(writer: asyncio.StreamWriter) -> None:
    """Send one line and close the connection."""
    writer.write(TURN + b"\n")
    writer.close()


class TestConversation:
    async def test_snapshot_comes_first_with_every_required_field(self) -> None:
        async with receiving() as here, here.client() as client:
            assert client.snapshot["event"] == "snapshot"
            data = client.snapshot["data"]
        greeting = data["greeting"]
        assert (data["entries"], data["status"], greeting["pod_name"], greeting["tools"]) == ([], "idle", "root", [])
        assert {"cwd", "provider", "model", "scope_summary"} < greeting.keys()

    async def test_every_report_is_kept_unchanged_with_its_sender(self) -> None:
        payloads = [
            '{"kind":"turn_ended","pod_name":"child"}',
            '{ "pod_name":"child", "extra":[1.50], "message":"\\u0000\\n","kind":"errored"}',
            '{"kind":"scope_sub_delegated","parent_pod":"child","sub_pod":"gc","sub_socket":"/gc","scope":[]}',
            '{"kind":"shut_down","pod_name":"child"}',
        ]
        async with receiving() as here:
            await here.send(*[f'{{"method":"pod_event","params":{payload}}}'.encode() for payload in payloads])
            assert await here.names(4) == ["child", "child", "gc", "child"]
            entries = [entry async for entry in here.ledger.entries()]
        assert [entry.payload for entry in entries] == payloads
        assert {entry.sender for entry in entries} == {US}

    async def test_list_pods_includes_reports_sent_before_it(self) -> None:
        delegation = event(kind="scope_sub_delegated", parent_pod="root", sub_pod="gc", sub_socket="/gc", scope=[])
        async with receiving() as here, here.client() as client:
            listed = await client.ask(TURN, delegation, LIST)
            assert listed["event"] == "pods_listed"
            assert listed["data"]["pods"] == [pod.as_json() for pod in await here.ledger.pods()]
        assert [pod["pod_name"] for pod in listed["data"]["pods"]] == ["gc"]

    async def test_too_large_registry_is_answered_with_an_error(self) -> None:
        delegation = event(kind="scope_sub_delegated", parent_pod="root", sub_pod="gc", sub_socket="/gc", scope=[])
        async with receiving(max_listed_bytes=100) as here, here.client() as client:
            answer = await client.ask(TURN, delegation, LIST)
            assert (answer["event"], answer["data"]["code"]) == ("error", "internal")
            assert "podledger pods" in answer["data"]["message"]
            await client.send(TURN)
            assert await here.names(3) == ["child", "gc", "child"]

    async def test_lines_after_list_pods_are_taken(self) -> None:
        async with receiving() as here, here.client() as client:
            await client.send(TURN, LIST, turn("b"), LIST, turn("c"))
            assert [(await client.answer())["event"] for _ in range(2)] == ["pods_listed"] * 2
            assert await here.names(3) == ["child", "b", "c"]

    async def test_half_closed_client_is_still_answered(self) -> None:
        async with receiving() as here, here.client() as client:
            client.writer.write(TURN + b"\n" + LIST)
            client.writer.write_eof()
            assert (await client.answer())["event"] == "pods_listed"
            assert await client.end() == b""

    @pytest.mark.parametrize("method", ["run", "shutdown", "cancel", "restore_pod"])
    async def test_unserved_method_is_refused_and_not_kept(self, method: str) -> None:
        async with receiving() as here, here.client() as client:
            answer = await client.ask(json.dumps({"method": method}).encode())
            assert answer["event"] == "error"
            assert answer["data"]["code"] == "invalid_request"
            await client.ask(LIST)
            assert await here.rejected(0) == []

    @pytest.mark.parametrize(
        "line",
        [
            b"garbage",
            b"\xff\xfe",
            b"\0",
            b"[" * 100_000,
            event(kind="turn_ended"),
            event(kind="turn_ended", pod_name="a/b"),
            event(kind="turn_ended", pod_name=".."),
            event(kind="pod_spawned", pod_name="a", socket_path="/s", scope=[]),
            event(kind="pod_exited", pod_name="a", exit_code=0),
            event(kind="pod_reclaimed", pod_name="a", reason="x"),
            b'{"method":"unheard_of"}',
            TURN + TURN,
        ],
        ids=lambda line: repr(line[:60]),
    )
    async def test_invalid_line_is_rejected_and_the_connection_continues(self, line: bytes) -> None:
        async with receiving() as here, here.client() as client:
            answer = await client.ask(line)
            assert answer["event"] == "error"
            assert answer["data"]["code"] == "invalid_request"
            await client.send(TURN)
            assert await here.names(1) == ["child"]
            [kept] = await here.rejected(1)
        assert (kept.raw, kept.reason) == (line, answer["data"]["message"])
        assert (kept.pid, kept.uid, kept.gid) == US[:3]

    async def test_blank_lines_are_ignored(self) -> None:
        async with receiving() as here:
            await here.send(b"", b"\r", b" \t", TURN, b"", b"")
            assert await here.names(1) == ["child"]
            assert await here.rejected(0) == []


class TestFrames:
    async def test_line_of_maximum_length_is_taken(self) -> None:
        line = event(kind="errored", pod_name="child", message="x" * 400).ljust(1000)
        async with receiving(max_frame_bytes=1000) as here:
            await here.send(line)
            assert await here.names(1) == ["child"]

    async def test_too_long_line_is_rejected_once(self) -> None:
        async with receiving() as here:
            await here.send(b"x" * (5 << 20), TURN)
            assert await here.names(1) == ["child"]
            [kept] = await here.rejected(1)
        assert kept.raw == b"x" * KEPT_BYTES
        assert "longer than 1,048,576 bytes" in kept.reason

    async def test_report_of_almost_a_megabyte_is_kept_whole(self) -> None:
        message = "é😀x" * 100_000
        async with receiving() as here:
            await here.send(line_of({"kind": "errored", "pod_name": "child", "message": message})[:-1])
            await here.names(1)
            [entry] = [entry async for entry in here.ledger.entries()]
        assert json.loads(entry.payload)["message"] == message

    async def test_last_line_needs_no_newline(self) -> None:
        async with receiving() as here:
            async with here.client() as client:
                client.writer.write(TURN)
            assert await here.names(1) == ["child"]

    async def test_half_a_line_is_kept_as_rejected(self) -> None:
        async with receiving() as here:
            async with here.client() as client:
                client.writer.write(TURN + b"\n" + TURN[:30])
            assert await here.names(1) == ["child"]
            [kept] = await here.rejected(1)
        assert kept.raw == TURN[:30]

    async def test_lines_sent_byte_by_byte_arrive_whole(self) -> None:
        stream = b"\n".join([turn("a"), turn("b"), turn("c")]) + b"\n"
        async with receiving() as here, here.client() as client:
            for byte in stream:
                client.writer.write(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert await here.names(3) == ["a", "b", "c"]

    async def test_client_that_reads_no_answers_loses_nothing(self) -> None:
        """Lines that are not read yet survive that the answers to earlier ones cannot be written."""
        lines = [line for n in range(500) for line in (b"garbage", turn(f"p{n}"))]
        async with receiving() as here:
            await asyncio.to_thread(send_and_leave, here.receiver.path, lines)
            assert await here.names(500) == [f"p{n}" for n in range(500)]
            assert len(await here.rejected(500)) == 500


class TestConnections:
    async def test_silent_client_is_disconnected(self) -> None:
        async with receiving(idle_timeout_s=0.2) as here, here.client() as client:
            assert await client.end() == b""

    async def test_unfinished_line_of_a_slow_client_is_kept(self) -> None:
        async with receiving(idle_timeout_s=0.2) as here, here.client() as client:
            client.writer.write(b"half")
            assert (await client.answer())["event"] == "error"
            assert await client.end() == b""
            [kept] = await here.rejected(1)
        assert kept.raw == b"half"
        assert "not finished" in kept.reason

    async def test_full_receiver_closes_the_longest_silent_connection(self) -> None:
        async with receiving(max_connections=3) as here, contextlib.AsyncExitStack() as crowd:
            silent = [await crowd.enter_async_context(here.client()) for _ in range(3)]
            for n in range(5):
                await send_pod_event(here.receiver.path, TurnEnded(pod_name=f"p{n}"))
            assert sorted(await here.names(5)) == [f"p{n}" for n in range(5)]
            assert await silent[0].end() == b""
            assert (await silent[2].ask(LIST))["event"] == "pods_listed"

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a second user")
    @pytest.mark.parametrize("allowed", [False, True])
    async def test_another_user_is_accepted_only_if_allowed(
        self, allowed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        nobody = 65534
        script = (
            "import os, socket, sys\n"
            f"os.setgid({nobody}); os.setuid({nobody})\n"
            "for _ in range(3):\n"
            "    link = socket.socket(socket.AF_UNIX); link.connect(sys.argv[1]); print(len(link.recv(9)))\n"
        )
        async with receiving(allowed_uids=frozenset({nobody} if allowed else ())) as here:
            here.folder.chmod(0o755)
            here.receiver.path.chmod(0o666)
            command = [sys.executable, "-c", script, str(here.receiver.path)]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == (["9"] * 3 if allowed else ["0"] * 3)
        assert [record.levelname for record in caplog.records] == ([] if allowed else ["WARNING"])


class TestStopping:
    async def test_reports_sent_before_the_stop_are_kept(self) -> None:
        with short_folder() as folder:
            async with Ledger.open(folder / "l.db", "root") as ledger:
                async with Receiver(ledger, folder / "s") as receiver:
                    for _ in range(20):
                        send_and_leave(receiver.path, [TURN] * 100)
                assert (await ledger.head()).head_seq == 2000
            assert [left.name for left in folder.iterdir()] == ["l.db"]

    async def test_clients_that_have_left_are_read_to_their_end(self) -> None:
        with short_folder() as folder:
            async with Ledger.open(folder / "l.db", "root") as ledger:
                async with Receiver(ledger, folder / "s", limits=Limits(drain_grace_s=0.0)) as receiver:
                    for _ in range(10):
                        send_and_leave(receiver.path, [TURN] * 2000)
                assert (await ledger.head()).head_seq == 20_000
            assert receiver.unread_bytes == 0

    async def test_bytes_left_unread_are_logged_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        with short_folder() as folder:
            async with Ledger.open(folder / "l.db", "root") as ledger:
                async with Receiver(ledger, folder / "s", limits=Limits(drain_grace_s=0.0)) as receiver:
                    staying = socket.socket(socket.AF_UNIX)
                    staying.connect(str(receiver.path))
                    staying.sendall(TURN * 2000)
                read = (await ledger.head()).head_seq
            staying.close()
        assert 0 < receiver.unread_bytes <= len(TURN) * (2000 - read) + len(TURN)
        assert f"{receiver.unread_bytes:,} bytes of reports were not read" in caplog.text

    async def test_greeted_client_may_report_during_the_stop(self) -> None:
        with short_folder() as folder:
            async with Ledger.open(folder / "l.db", "root") as ledger:
                async with Receiver(ledger, folder / "s") as receiver:
                    reader, writer = await asyncio.open_unix_connection(receiver.path)
                    await reader.readline()
                    asyncio.get_running_loop().call_later(0.1, send_turn, writer)
                assert (await ledger.head()).head_seq == 1

    async def test_silent_client_delays_the_stop_by_the_grace_only(self) -> None:
        clock = asyncio.get_running_loop().time
        with short_folder() as folder:
            async with Ledger.open(folder / "l.db", "root") as ledger:
                async with Receiver(ledger, folder / "s", limits=Limits(drain_grace_s=0.2)) as receiver:
                    _, writer = await asyncio.open_unix_connection(receiver.path)
                    writer.write(TURN)
                    stopped_at = clock()
                assert 0.2 <= clock() - stopped_at < 2
                assert (await ledger.head()).head_seq == 1
                writer.close()

    async def test_second_receiver_on_a_socket_is_refused(self) -> None:
        async with receiving() as here:
            with pytest.raises(SocketError, match="another receiver"):
                async with Receiver(here.ledger, here.receiver.path):
                    pass
            await send_pod_event(here.receiver.path, ShutDown(pod_name="child"))
            assert await here.names(1) == ["child"]


class TestStorageTrouble:
    async def test_nothing_is_read_while_storage_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        async with receiving(busy_timeout_s=0.05) as here, here.client() as early:
            with locked(here.folder / "l.db"):
                await early.send(turn("before"))
                await wait_until(lambda: not here.receiver.healthy)
                assert "lock" in here.receiver.trouble
                late = asyncio.create_task(here.send(turn("late")))
                await early.send(turn("during"))
                await asyncio.sleep(0.3)
                assert not late.done(), "no client is greeted while nothing can be kept"
            await late
            assert sorted(await here.names(3)) == ["before", "during", "late"]
            assert here.receiver.healthy
            assert here.receiver.trouble == ""
        assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
        assert "takes no reports" in caplog.records[0].getMessage()
        assert "takes reports again" in caplog.records[1].getMessage()

    async def test_reports_lost_at_the_end_are_logged_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        with short_folder() as folder:
            async with Ledger.open(folder / "l.db", "root", busy_timeout_s=0.05) as ledger:
                limits = Limits(drain_grace_s=0.2)
                with locked(folder / "l.db"):
                    async with Receiver(ledger, folder / "s", limits=limits) as receiver:
                        await send_pod_event(receiver.path, TurnEnded(pod_name="child"))
                        await wait_until(lambda: not receiver.healthy)
        assert caplog.records[-1].levelno == logging.ERROR
        assert "1 report that had been read could not be committed" in caplog.records[-1].getMessage()
        assert receiver.lost == 1

    async def test_removed_database_is_trouble_until_it_is_back(self) -> None:
        with short_folder() as folder:
            async with Ledger.open(folder / "l.db", "root") as ledger, Receiver(ledger, folder / "s") as receiver:
                (folder / "l.db").rename(folder / "elsewhere")
                await send_pod_event(receiver.path, TurnEnded(pod_name="child"))
                await wait_until(lambda: not receiver.healthy)
                assert "removed or replaced" in receiver.trouble
                (folder / "elsewhere").rename(folder / "l.db")
                await wait_until(lambda: receiver.healthy)
                assert [entry.pod_name async for entry in ledger.entries()] == ["child"]
            assert receiver.lost == 0


@contextlib.contextmanager
def locked(path: Path) -> Any:
    """Hold the write lock, as a long transaction of another process does."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


class TestCrowds:
    async def test_many_senders_at_once_lose_nothing(self) -> None:
        async with receiving() as here:
            await asyncio.gather(*(here.send(turn(f"p{n}")) for n in range(500)))
            assert sorted(await here.names(500)) == sorted(f"p{n}" for n in range(500))

    async def test_smallest_limits_let_everything_through(self) -> None:
        smallest = {"max_queued": 1, "max_queued_bytes": 1, "max_batch": 1, "max_connections": 1, "max_long_lines": 1}
        async with receiving(**smallest) as here:
            long = line_of({"kind": "errored", "pod_name": "long", "message": "x" * 100_000})[:-1]
            await asyncio.gather(*(here.send(long, turn(f"p{n}"), turn(f"q{n}")) for n in range(20)))
            names = await here.names(60)
        assert sorted(names) == sorted(["long"] * 20 + [f"{letter}{n}" for letter in "pq" for n in range(20)])

    async def test_long_lines_wait_for_each_other_and_all_arrive(self) -> None:
        lines = [line_of({"kind": "errored", "pod_name": f"p{n}", "message": "x" * 900_000})[:-1] for n in range(30)]
        async with receiving(max_long_lines=8) as here:
            await asyncio.gather(*(asyncio.to_thread(send_and_leave, here.receiver.path, [line]) for line in lines))
            assert sorted(await here.names(30)) == sorted(f"p{n}" for n in range(30))
            assert await here.rejected(0) == []

    async def test_stalled_long_line_gives_way_to_waiting_ones(self) -> None:
        stalled = TURN.replace(b"child", b"x" * 50_000)
        async with receiving(max_long_lines=1) as here, here.client() as staller:
            staller.writer.write(stalled)
            await here.send(line_of({"kind": "errored", "pod_name": "long", "message": "x" * 100_000})[:-1])
            assert await here.names(1) == ["long"]
            [kept] = await here.rejected(1)
            assert (await staller.answer())["event"] == "error"
        assert kept.raw == stalled
        assert "while others waited" in kept.reason

    async def test_client_that_never_reads_its_answer_is_disconnected(self) -> None:
        async with receiving(answer_timeout_s=0.3) as here:
            spawned = [PodSpawned(pod_name=f"p{n}", socket_path="/" + "s" * 200) for n in range(2000)]
            await here.ledger.append_many(spawned)
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.connect(str(here.receiver.path))
                deaf.sendall(LIST + b"\n" + TURN + b"\n")
                async with here.client() as client:
                    assert len((await client.ask(LIST))["data"]["pods"]) == 2000
                assert (await here.names(2001))[-1] == "child"

    async def test_slow_client_gets_its_long_answer_whole(self) -> None:
        async with receiving() as here:
            await here.ledger.append_many([PodSpawned(pod_name=f"p{n}", socket_path="/s") for n in range(5000)])
            async with here.client() as client:
                await client.send(b"bad", LIST, TURN)
                assert (await client.answer())["event"] == "error"
                await asyncio.sleep(0.2)
                assert len((await client.answer())["data"]["pods"]) == 5000
            assert (await here.names(5001))[-1] == "child"
