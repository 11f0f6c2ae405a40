"""The doctor: each thing that can be wrong is found, with its fix, and a healthy ledger has no error."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podledger import Ledger, TurnEnded
from podledger.doctor import examine, host_checks, procfs
from podledger.store.log import Rejection
from tests.faults.samples import make_sample, story
from tests.given import OWNER, spawned
from tests.runner import podledger, podledger_json, podledger_process
from tests.support import alter


async def make_healthy(path: Path) -> None:
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.append(TurnEnded(pod_name="child"))


def found(path: Path, check: str, *options: str) -> dict[str, Any]:
    """Return the worst finding of one check."""
    findings = podledger_json("--db", path, "doctor", *options, status=None)["findings"]
    ranks = ("ok", "warning", "error")
    return max((f for f in findings if f["check"] == check), key=lambda f: ranks.index(f["level"]))


async def test_healthy_ledger_has_no_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    await make_healthy(tmp_path / "a.db")
    report = podledger("--db", tmp_path / "a.db", "doctor", "--json", status=None)
    assert (report.status, report.json()["ok"]) == (0, True)
    levels = {finding["check"]: finding["level"] for finding in report.json()["findings"]}
    assert {check for check, level in levels.items() if level != "ok"} <= {"sqlite", "disk"}
    assert "durability" in podledger("--db", tmp_path / "a.db", "doctor").out


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((3, 40, 1), "warning"),
        ((3, 44, 5), "warning"),
        ((3, 44, 6), "ok"),
        ((3, 50, 6), "warning"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "ok"),
        ((3, 52, 0), "ok"),
    ],
)
def test_sqlite_releases_with_the_wal_reset_fault(version: tuple[int, int, int], level: str) -> None:
    assert host_checks.sqlite_finding(version).level == level


async def test_missing_trigger_is_an_error(tmp_path: Path) -> None:
    await make_healthy(tmp_path / "a.db")
    alter(tmp_path / "a.db")
    assert found(tmp_path / "a.db", "triggers")["detail"] == "trigger events_no_update is missing"


def test_settings_that_lose_acknowledged_events_are_errors() -> None:
    weak = {"journal_mode": "wal", "synchronous": 1, "recursive_triggers": 0}
    assert [finding.level for finding in host_checks.settings_findings(weak)] == ["error", "error"]


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /srv/shared\\040files rw,relatime - nfs4 server:/export rw
41 22 0:36 / /srv rw,relatime - 9p host rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "level"),
    [
        ("/srv/shared files/a.db", "nfs4", "error"),
        ("/srv/a.db", "9p", "error"),
        ("/srvx/a.db", "ext4", "ok"),
    ],
)
def test_network_file_system_is_an_error(path: str, kind: str, level: str) -> None:
    point, found_kind = procfs.file_system(Path(path), MOUNTS)
    assert found_kind == kind
    assert host_checks.place_finding(point, found_kind).level == level


def test_file_system_of_this_file_is_known() -> None:
    assert procfs.file_system(Path(__file__))[1] != "unknown"


def test_low_disk_space_is_found() -> None:
    levels = [host_checks.space_finding(procfs.FreeSpace(size << 20, None)).level for size in (1, 100, 10_000)]
    assert levels == ["error", "warning", "ok"]
    assert host_checks.space_finding(procfs.FreeSpace(1 << 40, 10)).level == "warning"


def from_elsewhere(path: Path) -> dict[str, Any]:
    """Return the findings of a doctor in another process. In a process with the ledger open, it ignores the locks."""
    done = podledger_process("--db", path, "doctor", "--json", status=None)
    return {finding["check"]: finding for finding in done.json()["findings"]}


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM events").fetchone()
print("holding", flush=True)
sys.stdin.read()
"""


async def test_oldest_reader_and_large_wal_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    await make_healthy(path)
    async with Ledger.open(path) as ledger:
        await ledger.append(TurnEnded(pod_name="child"))
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            await ledger.append_many([TurnEnded(pod_name="child")] * 100)
            findings = from_elsewhere(path)
            assert f"process {reader.pid} " in findings["oldest reader"]["detail"]
            assert (findings["oldest reader"]["level"], findings["oldest reader"]["fix"]) == ("ok", "")
            assert str(reader.pid) in findings["open by"]["detail"]
            monkeypatch.setattr(host_checks, "LARGE_WAL_WARNING_BYTES", 1000)
            assert found(path, "wal")["level"] == "warning"
            reader.communicate()
        assert "nobody" in from_elsewhere(path)["oldest reader"]["detail"]


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
async def test_file_open_to_others_is_found(tmp_path: Path, end: str) -> None:
    await make_healthy(tmp_path / "a.db")
    async with Ledger.open(tmp_path / "a.db") as ledger:
        await ledger.append(TurnEnded(pod_name="child"))
        (tmp_path / f"a.db{end}").chmod(0o644)
        assert f"a.db{end} is open to others" in found(tmp_path / "a.db", "permissions")["detail"]


async def test_folder_that_others_can_write_is_found(tmp_path: Path) -> None:
    await make_healthy(tmp_path / "a.db")
    tmp_path.chmod(0o777)
    assert found(tmp_path / "a.db", "permissions")["level"] == "error"
    tmp_path.chmod(0o1777)
    assert found(tmp_path / "a.db", "permissions")["level"] == "warning"


async def test_symbolic_link_and_open_mirror_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await make_healthy(path)
    (tmp_path / "s.sock").symlink_to(path)
    assert "s.sock is a symbolic link" in found(path, "permissions", "--socket", str(tmp_path / "s.sock"))["detail"]
    async with Ledger.open(path) as ledger:
        await ledger.configure(mirror=str(tmp_path / "pods.json"))
    (tmp_path / "pods.json").touch(0o666)
    (tmp_path / "pods.json").chmod(0o666)
    assert "is open to others" in found(path, "mirror")["detail"]


async def test_log_ahead_of_the_clock_is_an_error(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "a.db", OWNER, clock=lambda: 4_000_000_000_000_000_000) as ledger:
        await ledger.append(TurnEnded(pod_name="child"))
    assert found(tmp_path / "a.db", "clock")["level"] == "error"


async def test_sender_with_a_wrong_clock_is_a_warning(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "a.db", OWNER, clock=lambda: 1_000_000_000_000_000_000) as ledger:
        await ledger.append_many(story(1))
    assert found(tmp_path / "a.db", "clock")["level"] == "warning"


async def test_outbox_that_does_not_drain_is_an_error(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "a.db", OWNER, clock=lambda: 1_000_000_000_000_000_000) as ledger:
        await ledger.configure(parent_socket="/run/nobody.sock")
        await ledger.append(spawned("child"))
    finding = found(tmp_path / "a.db", "outbox")
    assert (finding["level"], "1 report, the oldest" in finding["detail"]) == ("error", True)


async def test_rejected_lines_and_gaps_are_warnings(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "a.db", OWNER) as ledger:
        await ledger.commits.append([], [Rejection(b"\x1b[2J", "not \x1b[2J JSON", None)])
        await ledger.append_many(story(3))
    assert found(tmp_path / "a.db", "rejected")["level"] == "warning"
    assert "2 stamped reports of 1 sender never" in found(tmp_path / "a.db", "gaps")["detail"]
    assert "\x1b" not in podledger("--db", tmp_path / "a.db", "doctor").out


async def test_newer_and_missing_database_are_errors(tmp_path: Path) -> None:
    await make_healthy(tmp_path / "a.db")
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "newer" in found(tmp_path / "a.db", "schema")["detail"]
    podledger("--db", tmp_path / "none.db", "doctor", status=1)
    assert not (tmp_path / "none.db").exists()


async def test_doctor_changes_nothing(tmp_path: Path) -> None:
    await make_sample(tmp_path / "a.db", rounds=1)
    before = (tmp_path / "a.db").read_bytes()
    assert examine.examine(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]
