"""The sweeper: it takes in the reports left in a spool, once, and hostile files harm nothing but themselves."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from podledger import Ledger, PodExited, SpoolSweeper, Stamp
from podledger.client import segments
from podledger.client.spool import UNNAMED, SpoolStream
from podledger.client.spooled import put
from podledger.core.entries import Sender
from podledger.core.errors import StorageError
from podledger.core.stamps import Stamper
from tests.given import OWNER, incarnation
from tests.runner import podledger, start
from tests.waiting import block_until, wait_until

ME = incarnation(7)


def leave(folder: Path, count: int = 1, key: str = ME) -> SpoolStream:
    """Leave reports in a spool, as a process that was killed does."""
    stream = SpoolStream(str(folder), key)
    stamper = Stamper(speaker=ME)
    for _ in range(count):
        put(stream, {"kind": "turn_ended", "pod_name": "child"}, stamper, ME)
    return stream


@asynccontextmanager
async def sweeping(folder: Path, every_s: float = 5.0) -> AsyncIterator[tuple[Ledger, SpoolSweeper]]:
    async with Ledger.open(folder / "l.db", OWNER) as ledger:
        (folder / "spool").mkdir(exist_ok=True)
        yield ledger, SpoolSweeper(ledger, folder / "spool", every_s=every_s)


async def appended(ledger: Ledger) -> int:
    return (await ledger.head()).head_seq


class TestSweep:
    async def test_left_reports_are_reported_by_the_owner_of_the_file(self, tmp_path: Path) -> None:
        leave(tmp_path / "spool", 3)
        async with sweeping(tmp_path) as (ledger, sweeper):
            assert (await sweeper.sweep()).recorded == 3
            entries = [entry async for entry in ledger.entries()]
            assert (await ledger.verify()).ok
        assert [entry.sequence for entry in entries] == [1, 2, 3]
        assert {(entry.evidence, entry.pid, entry.uid) for entry in entries} == {("reported", None, os.geteuid())}
        assert entries[0].sender == Sender(None, os.geteuid(), os.getegid())

    def test_swept_report_survives_export_and_import(self, tmp_path: Path) -> None:
        async def sweep() -> None:
            async with sweeping(tmp_path) as (_ledger, sweeper):
                await sweeper.sweep()

        leave(tmp_path / "spool")
        asyncio.run(sweep())
        exported = podledger("export", "-", "--db", "l.db", folder=tmp_path).out
        podledger("init", OWNER, "--db", "copy.db", folder=tmp_path)
        podledger("import", "-", "--db", "copy.db", folder=tmp_path, stdin=exported)
        assert exported.count("\n") == 1
        assert podledger("export", "-", "--db", "copy.db", folder=tmp_path).out == exported

    async def test_recorded_report_is_not_appended_again(self, tmp_path: Path) -> None:
        stream = leave(tmp_path / "spool", 2)
        claimed = stream.claim()
        assert claimed
        copy = b"".join(claimed.lines)
        stream.release(claimed)
        async with sweeping(tmp_path) as (ledger, sweeper):
            await sweeper.sweep()
            SpoolStream(str(tmp_path / "spool"), "stated").append(lambda _source, _number: copy)
            assert await sweeper.sweep() == (0, 0, 2)
            assert await appended(ledger) == 2

    async def test_segment_that_a_process_sends_is_left_to_it(self, tmp_path: Path) -> None:
        stream = leave(tmp_path / "spool")
        claimed = stream.claim()
        assert claimed
        async with sweeping(tmp_path) as (_ledger, sweeper):
            assert not any(await sweeper.sweep())
            stream.release(claimed)
            assert (await sweeper.sweep()).recorded == 1

    async def test_process_goes_on_after_a_sweep(self, tmp_path: Path) -> None:
        stream = leave(tmp_path / "spool", 2)
        async with sweeping(tmp_path) as (ledger, sweeper):
            await sweeper.sweep()
            put(stream, {"kind": "turn_ended", "pod_name": "child"}, Stamper(speaker=ME), ME)
            await sweeper.sweep()
            assert [entry.sequence async for entry in ledger.entries()] == [1, 2, 3]
            assert await ledger.gaps() == []

    async def test_exit_of_a_pod_sweeps_and_removes_its_stream(self, tmp_path: Path) -> None:
        async with sweeping(tmp_path, every_s=3600.0) as (ledger, sweeper), sweeper:
            leave(tmp_path / "spool")
            await ledger.append(PodExited(pod_name="child", exit_code=0, stamp=Stamp.naming(ME)))
            await wait_until(lambda: not (tmp_path / "spool" / ME).exists())
            assert await appended(ledger) == 2

    async def test_refused_commit_keeps_the_reports(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        leave(tmp_path / "spool", 2)
        async with sweeping(tmp_path) as (ledger, sweeper):

            async def fail(*_: object) -> None:
                raise StorageError("the disk is full")

            with monkeypatch.context() as patch:
                patch.setattr(ledger.commits, "append", fail)
                with pytest.raises(StorageError):
                    await sweeper.sweep()
            assert (await sweeper.sweep()).recorded == 2

    async def test_folder_that_cannot_be_used_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
            with pytest.raises(StorageError, match="file"):
                async with SpoolSweeper(ledger, tmp_path / "file"):
                    pass


class TestHostile:
    async def test_line_that_is_no_event_is_kept_as_rejected(self, tmp_path: Path) -> None:
        stream = leave(tmp_path / "spool")
        junk = [b"\xff\x00 junk", b'{"method":"list_pods"}', b"x" * (1 << 21), b"[]"]
        for line in junk:
            stream.append(lambda _source, _number, line=line: line + b"\n")  # type: ignore[misc]
        async with sweeping(tmp_path) as (ledger, sweeper):
            assert await sweeper.sweep() == (1, 4, 0)
            kept = await ledger.rejected()
        assert [line.raw for line in kept] == [junk[0], junk[1], junk[2][: 64 << 10], junk[3]]
        assert {(line.pid, line.uid) for line in kept} == {(None, os.geteuid())}

    @pytest.mark.parametrize("kind", ["symlink", "fifo", "hard link", "huge", "lines", "folder", "other user"])
    async def test_file_that_no_sender_writes_is_left_alone(
        self, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_text('{"method":"pod_event","params":{"kind":"turn_ended","pod_name":"child"}}\n')
        leave(tmp_path / "spool", key=UNNAMED)
        folder = tmp_path / "spool" / ME
        folder.mkdir()
        trap = folder / segments.Position(incarnation(1), 1).name
        match kind:
            case "symlink":
                trap.symlink_to(secret)
            case "fifo":
                os.mkfifo(trap)
            case "hard link":
                trap.hardlink_to(secret)
            case "huge":
                trap.touch()
                os.truncate(trap, 1 << 40)
            case "lines":
                trap.write_bytes(b"\n" * 60_000)
            case "folder":
                trap.mkdir()
            case _:
                if os.geteuid():
                    pytest.skip("only root can give a file away")
                trap.write_bytes(secret.read_bytes())
                os.chown(trap, 12345, 12345)
        async with sweeping(tmp_path) as (ledger, sweeper):
            assert await sweeper.sweep() == (1, 0, 0)
            await sweeper.sweep()
            assert await appended(ledger) == 1
        assert os.path.lexists(trap)
        assert secret.exists()
        assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1

    async def test_linked_folder_is_not_followed(self, tmp_path: Path) -> None:
        leave(tmp_path / "elsewhere")
        (tmp_path / "spool").mkdir()
        (tmp_path / "spool" / ME).symlink_to(tmp_path / "elsewhere" / ME)
        async with sweeping(tmp_path) as (_ledger, sweeper):
            assert not any(await sweeper.sweep())
        assert list((tmp_path / "elsewhere" / ME).iterdir())

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    async def test_allowed_user_is_swept_and_can_go_on(self, tmp_path: Path) -> None:
        leave(tmp_path / "spool")
        for path in [tmp_path / "spool" / ME, *(tmp_path / "spool" / ME).iterdir()]:
            os.chown(path, 12345, 12345)
        async with Ledger.open(tmp_path / "l.db", OWNER) as ledger:
            assert not any(await SpoolSweeper(ledger, tmp_path / "spool").sweep())
            allowing = SpoolSweeper(ledger, tmp_path / "spool", allowed_uids=frozenset([12345]))
            assert (await allowing.sweep()).recorded == 1
            assert [entry.uid async for entry in ledger.entries()] == [12345]
        [file] = (tmp_path / "spool" / ME).iterdir()
        assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (12345, 0o600)

    async def test_many_files_cost_a_bounded_sweep(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("podledger.services.spool_sweeper.MAX_STREAMS", 10)
        monkeypatch.setattr(segments, "MAX_FILES", 10)
        for number in range(1, 31):
            leave(tmp_path / "spool", key=incarnation(number))
        for number in range(100):
            (tmp_path / "spool" / incarnation(1) / f"junk-{number}").touch()
            (tmp_path / "spool" / f"junk-{number}").touch()
        async with sweeping(tmp_path) as (_ledger, sweeper):
            recorded = [(await sweeper.sweep()).recorded for _ in range(3)]
        assert max(recorded) <= 10
        assert sum(recorded) >= 29


class TestServe:
    def test_serve_takes_in_what_was_left(self, short: Path) -> None:
        podledger("init", OWNER, folder=short)
        leave(short / "spool", 2)
        with start("serve", "--socket", "s", "--spool", "spool", folder=short, stderr=subprocess.PIPE) as serving:
            block_until(lambda: "2  " in podledger("events", folder=short).out)
            serving.send_signal(signal.SIGTERM)
            _, err = serving.communicate(timeout=30)
        assert "took in from the spool spool: 2 reports" in err
        assert serving.returncode == 0

    def test_own_spool_of_a_pod_is_refused(self, short: Path) -> None:
        podledger("init", OWNER, folder=short)
        words = ("serve", "--socket", "s", "--spool", "spool")
        assert "own reports" in podledger(*words, folder=short, status=2, PODLEDGER_SPOOL=str(short / "spool")).err
