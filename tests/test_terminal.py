"""Tables, trees and progress on a terminal, wide and narrow."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.cells import cell_len

from podledger.cli.layout import table_lines, wrap
from podledger.cli.scopes import parse_rule, rule_text
from podledger.cli.terminal import Screen
from tests.runner import OnTerminal, on_terminal, podledger, podledger_json

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a ledger of three pods, one with a Chinese name and one with a long scope."""
    podledger("init", "root", folder=tmp_path)
    for name, *scope in (
        ("coder", "write:/srv/app"),
        ("测试员", "read-here:/srv"),
        ("writer", "write:/srv/app/docs/api"),
    ):
        rules = [word for rule in scope for word in ("--scope", rule)]
        podledger("spawned", name, "--socket", f"/run/agents/{name}.sock", *rules, folder=tmp_path)
    return tmp_path


def plain_lines(shown: OnTerminal) -> list[str]:
    """Return the lines on the terminal without colours."""
    return COLOURS.sub("", shown.terminal).splitlines()


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize(
    "words", [("pods",), ("pods", "--all"), ("pods", "--tree"), ("events",), ("explain", "coder")], ids=" ".join
)
def test_no_line_is_wider_than_the_terminal(folder: Path, words: tuple[str, ...], columns: int) -> None:
    lines = plain_lines(on_terminal(*words, folder=folder, columns=columns))
    widest = max(lines, key=cell_len)
    assert cell_len(widest) <= max(columns, 36), widest


def test_table_at_80_columns_shows_times_with_their_zone(folder: Path) -> None:
    header, first, *_ = plain_lines(on_terminal("pods", folder=folder, columns=80))
    since = podledger_json("pods", folder=folder)[0]["since"]
    assert header.split("  ")[0] == "pod"
    assert "since (UTC)" in header
    assert since[:10] in first


def test_narrow_terminal_shows_records(folder: Path) -> None:
    lines = plain_lines(on_terminal("pods", folder=folder, columns=40))
    assert lines[:2] == ["pod          coder", "parent       root"]
    assert lines.count("") == 2


def test_wide_characters_are_aligned() -> None:
    lines = list(table_lines(("pod", "seq"), [("测试员", "1"), ("coder", "2")], Screen(40)))
    assert [cell_len(line) for line in lines] == [
        cell_len("测试员") + 5,
        cell_len("测试员") + 3,
        cell_len("测试员") + 3,
    ]


@pytest.mark.parametrize("text", ["a b", "/srv/app/src/main.py", "x" * 50, "测" * 30, "one  two " * 9, "/" * 40])
def test_wrapped_text_fits_and_loses_nothing(text: str) -> None:
    lines = wrap(text, 10)
    assert max(map(cell_len, lines)) <= 10
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_outcomes_are_coloured_only_on_a_terminal(folder: Path) -> None:
    shown = on_terminal("events", folder=folder, columns=80)
    assert "\x1b[32m" in shown.terminal
    assert "\x1b" not in podledger("events", folder=folder).out
    assert "\x1b" not in on_terminal("events", folder=folder, columns=80, NO_COLOR="1").terminal


def test_control_characters_of_pods_do_not_reach_the_terminal(folder: Path) -> None:
    event = {"kind": "errored", "pod_name": "coder", "message": "bad\x1b[2J\x07\u202enews"}
    podledger("import", "-", folder=folder, stdin=json.dumps(event) + "\n\x1b[31mgarbage\n", status=1)
    for words in (["events"], ["notifications"], ["rejected"], ["explain", "coder"], ["sql", "SELECT * FROM events"]):
        lines = plain_lines(on_terminal(*words, folder=folder, columns=80))
        assert not [char for line in lines for char in line if not char.isprintable()], words


def test_long_table_is_laid_out_quickly() -> None:
    rows = [(f"pod-{number}", "/run/agents/pod.sock", "write:/srv/app/测", str(number)) for number in range(11_000)]
    for columns in (None, 80, 30):
        start = time.process_time()
        assert len(list(table_lines(("pod", "socket", "scope", "seq"), rows, Screen(columns, colours=True)))) > 11_000
        assert time.process_time() - start < 2


def reordered(pods: int) -> str:
    """Return wire lines of pods that each reported before they were delegated, although sent after."""
    lines = []
    for number in range(pods):
        name = f"late-{number}"
        delegation = {
            "kind": "scope_sub_delegated",
            "parent_pod": "coder",
            "sub_pod": name,
            "sub_socket": "",
            "scope": [],
        }
        for sequence, event in ((2, {"kind": "turn_ended", "pod_name": name}), (1, delegation)):
            stamp = {
                "id": f"00000000-0000-4000-8000-{number:06x}{sequence:06x}",
                "source": f"019a0000-0000-7000-8000-{number:012x}",
                "sequence": sequence,
                "time": f"2026-01-01T00:00:0{sequence}Z",
            }
            lines.append(json.dumps(event | {"stamp": stamp}))
    return "\n".join(lines)


def test_output_in_a_file_is_whole_while_progress_shows(folder: Path) -> None:
    podledger("import", "-", folder=folder, stdin=reordered(50))
    words = ("replay", "--order", "sent")
    expected = podledger(*words, folder=folder).out

    shown = on_terminal(*words, folder=folder, columns=80, pipe_stdout=True)

    assert expected.count(" in the replay\n") == 50
    assert shown.piped == expected
    assert not set(expected.splitlines()) & set(plain_lines(shown))


def test_progress_does_not_mix_with_printed_lines(folder: Path) -> None:
    podledger("import", "-", folder=folder, stdin=reordered(50))
    shown = on_terminal("replay", "--order", "sent", folder=folder, columns=80)
    assert len(plain_lines(shown)) >= 50
    assert set(re.findall(r"\x1b[^m]*[A-Za-z]", shown.terminal)) <= {"\x1b[1m", "\x1b[0m"}


def test_tree_shows_the_reach_of_each_rule(folder: Path) -> None:
    assert "read-here:/srv" in podledger("pods", "--tree", folder=folder).out


@pytest.mark.parametrize("rule", ["write:/srv", "read:/srv", "write-here:/srv/a:b", "read-here:."])
def test_scope_rule_is_printed_as_it_is_typed(rule: str) -> None:
    assert rule_text(**parse_rule(rule)) == rule


def test_demo_fits_a_narrow_terminal(tmp_path: Path) -> None:
    lines = plain_lines(on_terminal("demo", folder=tmp_path, columns=60))
    assert max(map(cell_len, lines)) <= 60


def test_demo_writes_a_small_picture(tmp_path: Path) -> None:
    assert podledger("demo", "--svg", "demo.svg", folder=tmp_path).out == ""
    picture = tmp_path / "demo.svg"
    assert ET.fromstring(picture.read_text()).tag.endswith("svg")
    assert picture.stat().st_size < 60_000
    assert "@font-face" not in picture.read_text(), "a picture loads nothing from elsewhere"


def test_demo_picture_does_not_replace_a_ledger(folder: Path) -> None:
    refused = podledger("demo", "--svg", "podledger.db", folder=folder, status=None)
    assert (refused.status, "database" in refused.err) == (1, True)
