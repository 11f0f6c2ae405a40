"""Hostile text from pods in every output: no control character reaches a terminal, and no document breaks."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import unicodedata
from pathlib import Path

import pytest

from podledger import Errored, Ledger, PodReclaimed, PodSpawned, ScopeRule
from podledger.store.log import Rejection
from tests.faults.samples import make_sample
from tests.given import OWNER
from tests.runner import on_terminal, podledger
from tests.support import alter

COLOURS = re.compile(r"\x1b\[(?:[0-9];)?[0-9]{1,2}m")
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
            rule = ScopeRule(target=text[:1000], permission="write")
            await ledger.append(PodSpawned(pod_name=name, socket_path=text[:1000], scope=(rule,)))
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


def test_csv_cell_is_split_by_no_separator_and_holds_no_formula(hostile: Path) -> None:
    texts = (
        "ok;=cmd",
        "ok\t=cmd",
        "\uff1d1+1",
        "\uff0b1",
        "\uff20SUM(1)",
        " =1+1",
        "\x1b[31m=1",
        "\u202e=1",
        "\r=1",
        "-1",
        'a"b',
    )
    query = "SELECT " + ", ".join("'" + text + "'" for text in texts)
    out = podledger("--db", hostile, "sql", query, "--csv").out
    [row] = list(csv.reader(io.StringIO(out, newline="")))[1:]
    assert control_characters(out.replace("\r\n", "\n").replace("\t", "")) == set()
    assert out.splitlines()[1].startswith('"ok;=cmd","ok\t=cmd"')
    assert row[2:] == [
        "'\uff1d1+1",
        "'\uff0b1",
        "'\uff20SUM(1)",
        "' =1+1",
        "\\x1b[31m=1",
        "\\u202e=1",
        "\\r=1",
        "-1",
        'a"b',
    ]


def test_export_to_a_terminal_is_escaped_and_to_a_pipe_is_exact(hostile: Path) -> None:
    shown = on_terminal("--db", hostile, "export", "-", folder=hostile.parent, columns=80).terminal
    assert control_characters(shown) == set()
    piped = on_terminal("--db", hostile, "export", "-", folder=hostile.parent, columns=80, pipe_stdout=True).piped
    messages = [json.loads(line)["event"].get("message") for line in piped.split("\n") if line]
    assert [message for message in messages if message is not None] == list(HOSTILE)


@pytest.mark.parametrize(
    "words", [("events",), ("explain", "pod-0"), ("digest",), ("recover", "l.db", "new.db")], ids=" ".join
)
def test_text_of_a_hostile_database_cannot_control_a_terminal(tmp_path: Path, words: tuple[str, ...]) -> None:
    path, text = tmp_path / "l.db", "\x1b[2J\u202e\x9b31m"
    asyncio.run(make_sample(path, rounds=1))
    alter(path, *(f"UPDATE events SET {name} = '{text}'" for name in ("evidence", "outcome", "digest", "kind")))
    shown = on_terminal("--db", path, *words, folder=tmp_path, columns=80).terminal
    assert control_characters(COLOURS.sub("", shown)) == set()


def test_mirror_has_no_control_characters(hostile: Path) -> None:
    text = hostile.with_name("pods.json").read_text()
    assert control_characters(text) == set()
    assert {pod["pod_name"] for pod in json.loads(text)} == set(NAMES) - {NAMES[1]}


def test_error_is_one_line_without_control_characters(tmp_path: Path) -> None:
    failed = podledger("--db", tmp_path / "\x1b[2J\n.db", "events", status=None)
    assert (failed.status, len(failed.err.splitlines()), control_characters(failed.err)) == (1, 1, set())
    assert control_characters(podledger("--db", tmp_path / "a.db", "init", "\x1b[2J", status=2).err) == set()
