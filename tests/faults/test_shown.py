"""Hostile text from pods in every output: no control character reaches a terminal, and no document breaks."""

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
from tests.given import OWNER
from tests.runner import podledger

HOSTILE = (
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
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which every text from a pod is hostile."""
    path = tmp_path_factory.mktemp("hostile") / "a.db"
    asyncio.run(_write(path))
    return path


async def _write(path: Path) -> None:
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.configure(mirror=str(path.with_name("pods.json")))
        for name, text in zip(NAMES, HOSTILE, strict=True):
            rule = ScopeRule(target=text[:5000], permission="write")
            await ledger.append(PodSpawned(pod_name=name, socket_path=text[:5000], scope=(rule,)))
            await ledger.append(Errored(pod_name=name, message=text))
            await ledger.commits.append([], [Rejection(text[:5000].encode(), text[:5000], None)])
        await ledger.append(PodReclaimed(pod_name=NAMES[1], reason=HOSTILE[0]))


def control_characters(text: str) -> set[str]:
    """Return the control characters of a text, except for the ends of lines."""
    return {char for char in text if char != "\n" and unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp", "Cs")}


@pytest.mark.parametrize("command", TEXT, ids=" ".join)
def test_no_control_character_reaches_a_terminal(hostile: Path, command: tuple[str, ...]) -> None:
    shown = podledger("--db", hostile, *command)
    assert control_characters(shown.out + shown.err) == set()


def test_event_and_notification_take_one_line_each(hostile: Path) -> None:
    assert len(podledger("--db", hostile, "events").out.splitlines()) == 2 * len(HOSTILE) + 1
    lines = podledger("--db", hostile, "notifications").out.splitlines()
    assert len(lines) == len(HOSTILE)
    assert max(len(line) for line in lines) < 30_000, "a message of a megabyte is cut"


@pytest.mark.parametrize("command", TEXT, ids=" ".join)
def test_json_is_plain_ascii(hostile: Path, command: tuple[str, ...]) -> None:
    shown = podledger("--db", hostile, *command, "--json")
    assert shown.out.isascii()
    assert control_characters(shown.out) == set()
    for line in shown.out.splitlines():
        json.loads(line)


def test_json_holds_the_exact_message(hostile: Path) -> None:
    events = [json.loads(line)["event"] for line in podledger("--db", hostile, "events", "--json").out.splitlines()]
    assert [event["message"] for event in events if event["kind"] == "errored"] == list(HOSTILE)


def test_csv_has_no_formula(hostile: Path) -> None:
    shown = podledger("--db", hostile, "sql", "SELECT pod_name, payload FROM events", "--csv").out
    csv.field_size_limit(1 << 24)
    cells = [cell for row in csv.reader(io.StringIO(shown)) for cell in row]
    assert cells
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []


def test_mirror_has_no_control_characters(hostile: Path) -> None:
    text = hostile.with_name("pods.json").read_text()
    assert control_characters(text) == set()
    assert {pod["pod_name"] for pod in json.loads(text)} == set(NAMES) - {NAMES[1]}


def test_error_is_one_line_without_control_characters(tmp_path: Path) -> None:
    failed = podledger("--db", tmp_path / "\x1b[2J\n.db", "events", status=None)
    assert (failed.status, len(failed.err.splitlines()), control_characters(failed.err)) == (1, 1, set())
    assert control_characters(podledger("--db", tmp_path / "a.db", "init", "\x1b[2J", status=2).err) == set()
