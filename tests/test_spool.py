"""The spool: a report that a process has appended survives that process, and goes out once, in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podledger import TurnEnded, fire_and_forget, prepare_spawn, send_pod_event
from podledger.client import segments, spool, spool_sender
from podledger.client.held import HeldConnection
from podledger.client.spool import UNNAMED, Claimed, SpoolStream
from podledger.client.spooled import put, send_oldest, spool_for, stream_for
from podledger.core.stamps import Stamper
from podledger.ledger import Ledger
from podledger.server.receiver import Receiver
from tests.given import OWNER, incarnation
from tests.runner import clean_environment, podledger
from tests.sockets import dead_at, parent_at
from tests.waiting import wait_until

ME = incarnation(7)


def fresh(folder: Path, key: str = UNNAMED) -> SpoolStream:
    """Return a stream as a new process sees it."""
    return SpoolStream(str(folder), key)


def fill(stream: SpoolStream, *texts: str) -> list[int]:
    """Append a line for each text; return their numbers."""
    return [stream.append(lambda _source, _number, text=text: f"{text}\n".encode())[1] for text in texts]  # type: ignore[misc]


def taken(stream: SpoolStream) -> list[str]:
    """Take every line out of a stream."""
    lines: list[str] = []
    while claimed := stream.claim():
        lines += [line.decode().strip() for line in claimed.lines]
        stream.drop(claimed)
    return lines


def only_file(folder: Path) -> Path:
    [file] = [path for path in folder.rglob("*") if path.is_file()]
    return file


class TestStream:
    def test_lines_come_out_in_order(self, tmp_path: Path) -> None:
        assert fill(fresh(tmp_path), "a", "b", "c") == [1, 2, 3]
        assert taken(fresh(tmp_path)) == ["a", "b", "c"]
        assert taken(fresh(tmp_path)) == []

    def test_numbers_go_on_after_everything_was_taken(self, tmp_path: Path) -> None:
        fill(fresh(tmp_path), "a", "b")
        taken(fresh(tmp_path))
        assert fill(fresh(tmp_path), "c") == [3]

    def test_processes_share_one_numbering(self, tmp_path: Path) -> None:
        one, other = fresh(tmp_path), fresh(tmp_path)
        numbers = [fill(stream, "x")[0] for stream in (one, other, other, one, one, other)]
        assert numbers == [1, 2, 3, 4, 5, 6]
        assert (
            one.append(lambda _source, _number: b"y\n").source == other.append(lambda _source, _number: b"z\n").source
        )

    def test_threads_share_one_numbering(self, tmp_path: Path) -> None:
        stream = fresh(tmp_path)
        threads = [threading.Thread(target=fill, args=(stream, *"abcdefghij")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fill(fresh(tmp_path), "last") == [81]

    def test_lines_fill_several_segments(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segments, "SEGMENT_BYTES", 64)
        texts = [f"line {number}" for number in range(100)]
        fill(fresh(tmp_path), *texts)
        assert len(list((tmp_path / UNNAMED).iterdir())) > 10
        assert taken(fresh(tmp_path)) == texts

    def test_failed_append_uses_no_number(self, tmp_path: Path) -> None:
        stream = fresh(tmp_path)
        fill(stream, "a")
        with pytest.raises(ZeroDivisionError):
            stream.append(lambda _source, _number: bytes(1 // 0))
        assert fill(stream, "b") == [2]

    def test_full_spool_names_its_folder_and_the_fix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segments, "SEGMENT_BYTES", 1_000)
        monkeypatch.setattr(spool, "MAX_BYTES", 5_000)
        stream = fresh(tmp_path)
        with pytest.raises(OSError, match="podledger serve --spool") as failure:
            fill(stream, *["x" * 99] * 60)
        assert failure.value.filename == str(tmp_path / UNNAMED)
        assert sum(path.stat().st_size for path in (tmp_path / UNNAMED).iterdir()) <= 5_000
        kept = taken(fresh(tmp_path))
        assert fill(stream, "goes on") == [len(kept) + 1]

    def test_line_that_is_too_long_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="16,777,216") as failure:
            fill(fresh(tmp_path), "x" * (16 << 20))
        assert failure.value.filename == str(tmp_path / UNNAMED)

    def test_folder_and_files_are_private_under_any_umask(self, tmp_path: Path) -> None:
        code = (
            "import os, sys; os.umask(0o777); from tests.test_spool import *; fill(fresh(Path(sys.argv[1])), 'a', 'b')"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path / "spool"], check=True, env=clean_environment())
        found = [tmp_path / "spool", tmp_path / "spool" / UNNAMED, only_file(tmp_path)]
        assert [oct(path.stat().st_mode & 0o777) for path in found] == ["0o700", "0o700", "0o600"]

    def test_claimed_segment_is_left_to_its_process(self, tmp_path: Path) -> None:
        fill(fresh(tmp_path), "a")
        holder = fresh(tmp_path)
        claimed = holder.claim()
        assert claimed
        fill(fresh(tmp_path), "b")
        with pytest.raises(BlockingIOError):
            fresh(tmp_path).claim()
        holder.release(claimed)
        assert taken(fresh(tmp_path)) == ["a", "b"]

    def test_forked_child_does_not_keep_the_lock(self, tmp_path: Path) -> None:
        fill(fresh(tmp_path), "a")
        holder = fresh(tmp_path)
        claimed = holder.claim()
        assert claimed
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, b"x")
            signal.pause()
        os.read(reading, 1)
        os.close(claimed.file)  # as the kernel does when the parent is killed
        segments._held.clear()
        try:
            assert taken(fresh(tmp_path)) == ["a"]
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_file_that_grew_after_its_claim_is_kept(self, tmp_path: Path) -> None:
        fill(fresh(tmp_path), "a")
        stream = fresh(tmp_path)
        claimed = stream.claim()
        assert isinstance(claimed, Claimed)
        with (tmp_path / UNNAMED / claimed.position.name).open("ab") as file:
            file.write(b"b\n")
        stream.drop(claimed)
        assert taken(stream) == ["a", "b"]

    def test_removed_stream_starts_another(self, tmp_path: Path) -> None:
        stream = fresh(tmp_path)
        source = stream.append(lambda _source, _number: b"a\n").source
        assert not fresh(tmp_path).remove()
        taken(stream)
        assert fresh(tmp_path).remove()
        assert list(tmp_path.iterdir()) == []
        again = stream.append(lambda _source, _number: b"b\n")
        assert (again.first, again.source != source) == (1, True)

    def test_lock_of_a_stopped_process_is_an_error(self, tmp_path: Path) -> None:
        fill(fresh(tmp_path), "a")
        with fresh(tmp_path)._locked(), pytest.raises(TimeoutError, match="stopped process"):
            SpoolStream(str(tmp_path), UNNAMED, lock_wait_s=0.01).append(lambda _source, _number: b"b\n")

    @given(
        texts=st.lists(st.text("abc", min_size=1, max_size=30), min_size=1, max_size=20),
        cut=st.integers(0, 1 << 20),
        segment=st.integers(20, 200),
    )
    def test_any_torn_end_keeps_every_whole_line(self, texts: list[str], cut: int, segment: int) -> None:
        """A process dies in its last append, of which any prefix may be in the file."""
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(segments, "SEGMENT_BYTES", segment)
            fill(fresh(Path(folder)), *texts)
            last = max(Path(folder, UNNAMED).iterdir())
            data = last.read_bytes()
            start = data[:-1].rfind(b"\n") + 1
            last.write_bytes(data[: start + cut % (len(data) - start)])
            [number] = fill(fresh(Path(folder)), "next")
            assert number == len(texts)
            assert taken(fresh(Path(folder))) == [*texts[:-1], "next"]


class TestSend:
    async def test_report_is_kept_while_the_receiver_is_away(
        self, short: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(spool_sender, "LONGEST_WAIT_S", 0.05)
        for _ in range(3):
            fire_and_forget(short / "s", TurnEnded(pod_name="child"), spool=short / "spool")
        assert only_file_lines(short) == 3
        async with Ledger.open(short / "l.db", OWNER) as ledger, Receiver(ledger, short / "s"):
            await wait_until(lambda: count(ledger, 3))
            await wait_until(lambda: only_file_lines(short) == 0)
            sequences = [entry.sequence async for entry in ledger.entries()]
        assert sequences == [1, 2, 3]

    async def test_confirmed_report_returns_its_outcome(self, short: Path) -> None:
        async with Ledger.open(short / "l.db", OWNER) as ledger, Receiver(ledger, short / "s"):
            event = TurnEnded(pod_name="child")
            recorded = await send_pod_event(short / "s", event, spool=short / "spool", confirm=True)
            assert recorded
            assert (recorded.seq, recorded.outcome) == (1, "unknown")

    async def test_unconfirmed_report_stays_in_the_spool(self, short: Path) -> None:
        event = TurnEnded(pod_name="child")
        with pytest.raises(TimeoutError, match="the spool keeps the report"):
            await send_pod_event(dead_at(short / "s"), event, spool=short / "spool", confirm=True, timeout_s=0.05)
        assert only_file_lines(short) == 1

    async def test_receiver_without_the_offer_gets_each_report_once(self, short: Path) -> None:
        async with parent_at(short / "s") as parent:
            for _ in range(3):
                await send_pod_event(short / "s", TurnEnded(pod_name="child"), spool=short / "spool")
            await wait_until(lambda: len(parent.lines) == 3)
            await wait_until(lambda: only_file_lines(short) == 0)
        assert [event["stamp"]["sequence"] for event in parent.events] == [1, 2, 3]
        assert all("ack" not in event["stamp"] for event in parent.events)

    async def test_half_answered_segment_sends_only_the_rest_again(self, short: Path) -> None:
        stream = stream_for(str(short / "spool"), {}, Stamper(speaker=ME))
        for _ in range(3):
            put(stream, {"kind": "turn_ended", "pod_name": "child"}, Stamper(speaker=ME))
        claimed = stream.claim()
        assert claimed
        first = json.loads(claimed.lines[0])["params"]["stamp"]["id"]
        stream.release(claimed)
        async with Ledger.open(short / "l.db", OWNER) as ledger, Receiver(ledger, short / "s"):
            await asyncio.to_thread(send_once, stream, short / "s", {first})
            sequences = [entry.sequence async for entry in ledger.entries()]
        assert sequences == [2, 3]

    async def test_line_that_no_sender_wrote_does_not_stop_the_others(self, short: Path) -> None:
        stream = stream_for(str(short / "spool"), {}, Stamper(speaker=ME))
        fill(stream, "junk", "{}")
        put(stream, {"kind": "turn_ended", "pod_name": "child"}, Stamper(speaker=ME))
        async with Ledger.open(short / "l.db", OWNER) as ledger, Receiver(ledger, short / "s"):
            await asyncio.to_thread(send_once, stream, short / "s", set())
            await wait_until(lambda: rejected(ledger, 2))
            assert await count(ledger, 1)
        assert taken(stream) == []

    async def test_unusable_spool_warns_once_and_sends(self, short: Path, caplog: pytest.LogCaptureFixture) -> None:
        (short / "spool").write_text("in the way")
        async with parent_at(short / "s") as parent:
            for _ in range(2):
                fire_and_forget(short / "s", TurnEnded(pod_name="child"), spool=short / "spool")
            await wait_until(lambda: len(parent.lines) == 2)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert str(short / "spool") in caplog.text

    def test_unusable_spool_is_an_error_of_the_call(self, short: Path) -> None:
        (short / "spool").write_text("in the way")
        with pytest.raises(OSError, match="spool"):
            send_pod_event(short / "s", TurnEnded(pod_name="child"), spool=short / "spool").close()

    async def test_report_of_a_program_that_ends_stays_for_the_owner(self, short: Path) -> None:
        code = (
            "import sys; from podledger import TurnEnded, fire_and_forget\n"
            "fire_and_forget(sys.argv[1], TurnEnded(pod_name='child'), spool=sys.argv[2])"
        )
        subprocess.run([sys.executable, "-c", code, dead_at(short / "s"), short / "spool"], check=True)
        assert only_file_lines(short) == 1


class TestEnvironment:
    def test_spool_of_the_parent_is_for_reports_to_the_parent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PODLEDGER_SPOOL", "/run/spool")
        assert spool_for("/run/any.sock") == "/run/spool"
        monkeypatch.setenv("PODLEDGER_SOCKET", "/run/parent.sock")
        assert spool_for("/run/parent.sock") == "/run/spool"
        assert spool_for("/run/other.sock") is None
        assert spool_for("/run/other.sock", "/run/mine") == "/run/mine"

    def test_spawned_pod_gets_its_own_spool_or_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "PODLEDGER_SPOOL" not in prepare_spawn("child", "/run/me.sock").environment
        assert prepare_spawn("child", "/run/me.sock", spool="/run/below").environment["PODLEDGER_SPOOL"] == "/run/below"
        monkeypatch.setenv("PODLEDGER_SPOOL", "/run/above")
        assert prepare_spawn("child", "/run/me.sock").environment["PODLEDGER_SPOOL"] == ""

    def test_incarnation_that_is_none_names_no_folder(self, tmp_path: Path) -> None:
        assert stream_for(str(tmp_path), {}, Stamper(speaker="../..")).path == f"{tmp_path}/{UNNAMED}"
        assert stream_for(str(tmp_path), {}, Stamper(speaker=ME)).path == f"{tmp_path}/{ME}"


class TestCommand:
    def test_report_waits_and_the_next_one_sends_it_first(self, short: Path) -> None:
        waiting = podledger("send", "s", "turn-ended", "child", "--spool", "spool", folder=short)
        assert "waits in" in waiting.err
        assert (waiting.status, waiting.out) == (0, "")

        async def receive() -> list[int | None]:
            async with Ledger.open(short / "l.db", OWNER) as ledger, Receiver(ledger, short / "s"):
                confirmed = await asyncio.to_thread(
                    lambda: podledger("send", "s", "shut-down", "child", "--spool", "spool", "--confirm", folder=short)
                )
                assert confirmed.out == "shut_down child: unknown at seq 2\n"
                return [entry.sequence async for entry in ledger.entries()]

        assert asyncio.run(receive()) == [1, 2]
        assert only_file_lines(short) == 0

    def test_json_says_that_the_report_waits(self, short: Path) -> None:
        document = podledger("send", "s", "turn-ended", "child", "--json", folder=short, PODLEDGER_SPOOL="spool").json()
        assert document["waiting"]["stamp"]["sequence"] == 1
        assert document["spool"] == str(short / "spool" / UNNAMED)

    def test_confirmation_that_does_not_come_is_an_error(self, short: Path) -> None:
        words = ("send", "s", "turn-ended", "child", "--spool", "spool", "--confirm")
        assert "the spool keeps the report" in podledger(*words, folder=short, status=1).err
        assert only_file_lines(short) == 1

    def test_spool_that_cannot_be_written_is_an_error(self, short: Path) -> None:
        (short / "spool").write_text("in the way")
        assert "spool" in podledger("send", "s", "turn-ended", "child", "--spool", "spool", folder=short, status=1).err

    def test_spool_needs_a_stamp(self, short: Path) -> None:
        podledger("send", "s", "turn-ended", "child", "--spool", "spool", "--no-stamp", folder=short, status=2)

    def test_stated_numbers_keep_their_stream(self, short: Path) -> None:
        stated = ("--source", incarnation(9), "--sequence", "4")
        podledger("send", "s", "turn-ended", "child", *stated, "--spool", "spool", folder=short)
        files = (short / "spool" / "stated").iterdir()
        assert b'"sequence":4' in b"".join(file.read_bytes() for file in files)


def only_file_lines(short: Path) -> int:
    """Return how many lines wait in the spool."""
    files = [path for path in (short / "spool").rglob("*") if path.is_file()]
    return sum(path.read_bytes().count(b"\n") for path in files)


def send_once(stream: SpoolStream, socket: Path, settled: set[str]) -> None:
    """Send the oldest segment on a connection of its own."""
    connection = HeldConnection(socket)
    send_oldest(stream, connection, settled, str)
    connection.close()


async def count(ledger: Ledger, expected: int) -> bool:
    return (await ledger.head()).head_seq == expected


async def rejected(ledger: Ledger, expected: int) -> bool:
    return (await ledger.head()).rejected_count == expected
