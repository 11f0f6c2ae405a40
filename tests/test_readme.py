"""The README's claims: its code runs and prints what it says, its commands exist, every setting is documented."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from podledger.cli.parser import parse
from podledger.cli.table import COMMANDS
from podledger.settings import Settings
from tests.cli import clean_environment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_and_prints_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(blocks("python")[0])
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == blocks("text")[0]


@pytest.mark.parametrize("line", [line[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ ")])
def test_each_command_shown_is_one_that_the_parser_takes(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert words.pop(0) == "podledger"
    args = parse([word for word in words if word != "&"])
    assert callable(args.run)


def test_every_command_is_documented() -> None:
    documented = (ROOT / "docs" / "commands.md").read_text()
    assert {name for name in COMMANDS if f"### `{name}" not in documented} == set()


def test_every_setting_is_documented_with_its_default() -> None:
    documented = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        row = next(line for line in documented.splitlines() if line.startswith(f"| `PODLEDGER_{name.upper()}` "))
        assert str(field.description) in row
        default = field.default if not isinstance(field.default, frozenset) else list(field.default)
        assert default is None or f"`{default}`" in row


def test_the_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
