"""What is shown: whatever a pod wrote, no control character reaches a terminal, and no document breaks."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import unicodedata
from pathlib import Path

import pytest

from podledger import Errored, Ledger, PodReclaimed, PodSpawned, ScopeRule
from podledger.store.log import Rejection
from tests.faults.samples import OWNER, run

NASTY = (
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "\u202eesrever\u2066\u2069\u200f",
    "two\nlines\r\n\u2028and\u2029more",
    "nul\x00 del\x7f c1\x9b31m",
    "=cmd|' /C calc'!A0",
    "\t@SUM(1)",
    "x" * (1 << 20),
    "\U000e0041tag \ufeff\u00ad",
)
TEXT = (
    ("events",),
    ("pods", "--all"),
    ("pods", "--tree"),
    ("notifications",),
    ("rejected",),
    ("doctor",),
    ("explain", "\u202epod"),
    ("holders", "/w"),
    ("diff", "0", "8"),
    ("sql", "SELECT * FROM event_log"),
)
NAMES = ("\u202epod", "=1+1", "@pod", "+pod", "-pod", "\u200bpod", "pod'\"`", "\U000e0041pod")


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which everything that a pod may write is nasty."""
    path = tmp_path_factory.mktemp("nasty") / "a.db"
    asyncio.run(_write(path))
    return path


async def _write(path: Path) -> None:
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.configure(mirror=str(path.with_name("pods.json")))
        for name, text in zip(NAMES, NASTY, strict=True):
            rule = ScopeRule(target=text[:5000], permission="write")
            await ledger.append(PodSpawned(pod_name=name, socket_path=text[:5000], scope=(rule,)))
            await ledger.append(Errored(pod_name=name, message=text))
            await ledger.commits.append([], [Rejection(text[:5000].encode(), text[:5000], None)])
        await ledger.append(PodReclaimed(pod_name=NAMES[1], reason=NASTY[0]))


def steering(text: str) -> set[str]:
    """The characters in a text that could steer what shows it, but for the ends of lines."""
    return {char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")}


@pytest.mark.parametrize("command", TEXT, ids=" ".join)
def test_no_control_character_reaches_a_terminal(nasty: Path, command: tuple[str, ...]) -> None:
    shown = run("--db", nasty, *command)
    assert steering(shown.out + shown.err) == set()


def test_an_event_and_a_notification_are_one_line_each(nasty: Path) -> None:
    assert len(run("--db", nasty, "events").out.splitlines()) == 2 * len(NASTY) + 1
    lines = run("--db", nasty, "notifications").out.splitlines()
    assert len(lines) == len(NASTY)
    assert max(len(line) for line in lines) < 30_000, "a megabyte is cut"


@pytest.mark.parametrize("command", TEXT, ids=" ".join)
def test_json_holds_what_was_written_and_is_plain_ascii(nasty: Path, command: tuple[str, ...]) -> None:
    shown = run("--db", nasty, *command, "--json")
    assert shown.out.isascii()
    assert steering(shown.out) == set()
    for line in shown.out.splitlines():
        json.loads(line)


def test_the_exact_message_is_in_the_json(nasty: Path) -> None:
    events = [json.loads(line)["event"] for line in run("--db", nasty, "events", "--json").out.splitlines()]
    assert [event["message"] for event in events if event["kind"] == "errored"] == list(NASTY)


def test_csv_holds_no_formula(nasty: Path) -> None:
    shown = run("--db", nasty, "sql", "SELECT pod_name, payload FROM events", "--csv").out
    csv.field_size_limit(1 << 24)
    cells = [cell for row in csv.reader(io.StringIO(shown)) for cell in row]
    assert cells
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


def test_the_mirror_is_json_in_which_nothing_steers(nasty: Path) -> None:
    text = nasty.with_name("pods.json").read_text()
    assert steering(text) == set()
    assert {pod["pod_name"] for pod in json.loads(text)} == set(NAMES) - {NAMES[1]}


def test_errors_are_one_safe_line(tmp_path: Path) -> None:
    told = run("--db", tmp_path / "\x1b[2J\n.db", "events")
    assert (told.status, len(told.err.splitlines()), steering(told.err)) == (1, 1, set())
    assert steering(run("--db", tmp_path / "a.db", "init", "\x1b[2J").err) == set()
