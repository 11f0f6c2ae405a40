"""Odd arguments, variables and streams: no command ends in a traceback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podledger.cli.table import COMMANDS
from tests.faults.samples import make_sample
from tests.runner import clean_environment, podledger
from tests.support import alter

ODD = (
    *(
        "",
        "-",
        "--",
        "0",
        "-1",
        "1",
        "3",
        "inf",
        "-inf",
        "nan",
        "1e300",
        "9" * 30,
        "9" * 5_000,
        "0x10",
        "1_000",
        "\u0661",
    ),
    *(
        "\udcff",
        "a\udcffb",
        "\x1b[31m",
        "\u202e",
        "\ud800",
        "a\nb",
        "x" * 70_000,
        "/",
        "..",
        "/dev/null",
        "/proc/self/mem",
    ),
    *("root", "pod-1", "turn_ended", "write:/srv", "=:=", "3:" + "0" * 64, "2026-01-01", "9999-12-31T23:59:59-12:00"),
    *("SELECT 1", "SELECT * FROM events", "[" * 5_000, '{"a":' * 900, "\\", "%s%n", "~", "*"),
)
OPTIONS = (
    *("--json", "--at", "--db", "--ledger", "--limit", "--since", "--until", "--timeout", "--grace", "--attempts"),
    *("--pod", "--kind", "--expect", "--csv", "--all", "--tree", "--incarnation", "--sequence", "--source", "--pid"),
    *("--socket", "--scope", "--reason", "--consumer", "--ack", "--force", "--discard", "--into", "--order", "--key"),
)
VARIABLES = (
    *(
        "PODLEDGER_DB",
        "PODLEDGER_LEDGER",
        "PODLEDGER_BUSY_TIMEOUT_S",
        "PODLEDGER_MAX_BATCH",
        "PODLEDGER_IDLE_TIMEOUT_S",
    ),
    *("PODLEDGER_ALLOWED_UIDS", "PODLEDGER_INCARNATION", "PODLEDGER_POD", "PODLEDGER_SOCKET", "PODLEDGER_MAX_QUEUED"),
    *("COLUMNS", "TZ", "NO_COLOR", "TERM"),
)
WORDS = st.one_of(
    st.sampled_from(ODD), st.sampled_from(OPTIONS), st.text(max_size=4).map(lambda text: text.replace("\0", ""))
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from(VARIABLES), st.sampled_from([odd for odd in ODD if odd != "\ud800"]), max_size=2
)
SHORT_LIVED = sorted(set(COMMANDS) - {"serve", "demo", "import"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("odd")
    asyncio.run(make_sample(path / "podledger.db", rounds=2))
    return path


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SHORT_LIVED), st.lists(WORDS, max_size=4), ENVIRONMENTS)
def test_no_command_line_ends_in_a_traceback(
    folder: Path, command: str, words: list[str], environment: dict[str, str]
) -> None:
    if "--follow" in words:
        return
    ended = podledger(command, *words, folder=folder, status=None, **environment)
    assert ended.status in (0, 1, 2)


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (("sql", "SELECT 1", "--timeout", "inf"), {}),
        (("sql", "SELECT 1", "--timeout", "1e300"), {}),
        (("events", "--limit", "9" * 30), {}),
        (("send", "nowhere.sock", "turn-ended", "me", "--timeout", "1e300"), {}),
        (("pods",), {"PODLEDGER_BUSY_TIMEOUT_S": "inf"}),
        (("pods",), {"PODLEDGER_BUSY_TIMEOUT_S": "1e300"}),
        (("pods",), {"PODLEDGER_ALLOWED_UIDS": "[" * 100_000}),
        (("sql", "SELECT '\udcff'"), {}),
        (("init", "\udcff"), {}),
    ],
)
def test_value_out_of_range_is_a_misuse(folder: Path, words: tuple[str, ...], environment: dict[str, str]) -> None:
    ended = podledger(*words, folder=folder, status=2, **environment)
    assert len(ended.err.splitlines()) == 1


def test_path_may_hold_any_byte(tmp_path: Path) -> None:
    path = tmp_path / "\udcff.db"
    podledger("--db", path, "init", "root")
    assert podledger("--db", path, "events").out == "no events\n"


@pytest.mark.parametrize("recorded_us", [1 << 62, -(1 << 62)])
def test_time_beyond_the_calendar_is_shown_and_reported(tmp_path: Path, recorded_us: int) -> None:
    path = tmp_path / "l.db"
    asyncio.run(make_sample(path, rounds=1))
    alter(path, f"UPDATE events SET recorded_us = {recorded_us}", f"UPDATE rejected SET recorded_us = {recorded_us}")
    for words in (("events",), ("events", "--json"), ("pods", "--all"), ("rejected", "--json"), ("notifications",)):
        podledger("--db", path, *words)
    assert "not in the years 1 to 9999" in podledger("--db", path, "verify", status=1).out


def test_ledger_renamed_under_its_log_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    asyncio.run(make_sample(path, rounds=1))
    alter(path, "DROP TRIGGER IF EXISTS ledgers_no_update", "UPDATE ledgers SET name = 'other'")
    for command in (("events",), ("pods", "--at", "2026-01-01"), ("explain", "pod-1"), ("diff", "0", "1"), ("gaps",)):
        ended = podledger("--db", path, *command, status=None)
        assert ended.status in (0, 1)
    assert podledger("--db", path, "verify", status=1)


@pytest.mark.parametrize(("closed", "status"), [(">&-", 1), ("2>&-", 0), ("<&-", 0), (">&- 2>&- <&-", 1)])
def test_closed_streams_cost_no_database(tmp_path: Path, closed: str, status: int) -> None:
    asyncio.run(make_sample(tmp_path / "podledger.db", rounds=2))
    command = f"{sys.executable} -m podledger events {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=clean_environment(), capture_output=True, check=False
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (status, False)
    assert podledger("verify", folder=tmp_path).status == 0


def test_unexpected_error_is_one_line(tmp_path: Path) -> None:
    script = "import podledger.cli as cli; cli.parse = lambda words: 1 / 0; raise SystemExit(cli.main())"
    done = subprocess.run([sys.executable, "-c", script], env=clean_environment(), capture_output=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert os.fsencode("ZeroDivisionError") in done.stderr
