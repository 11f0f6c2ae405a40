"""The README and the pages: their code runs, commands print the output shown, and references have targets."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from podledger.cli.parser import Parser, parse
from podledger.cli.table import COMMANDS
from podledger.core.entries import Outcome
from podledger.core.events import KINDS
from podledger.settings import Settings
from tests.readme import README, SENDERS, commands, constant, with_output
from tests.runner import clean_environment

ROOT = README.parent
TEXT = README.read_text()
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Return the fenced blocks of one language of a page, by default of the README."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run_python(script: str, folder: Path) -> str:
    """Run a script of the folder with the command `podledger` on its path; return what it printed."""
    command = folder / "podledger"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m podledger "$@"\n')
    command.chmod(0o755)
    environment = clean_environment()
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=folder,
        env=environment | {"PATH": f"{folder}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_library_example_runs_and_prints_as_shown(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(blocks("python")[0])
    assert run_python("example.py", tmp_path) == blocks("text")[0]


def test_sender_examples_run_and_print_as_shown(tmp_path: Path) -> None:
    """Each example of the page begins with a comment that names its file."""
    page = SENDERS.read_text()
    for code in blocks("python", page) + blocks("sh", page):
        (tmp_path / code.split()[1]).write_text(code)
    assert run_python("parent.py", tmp_path) == blocks("text", page)[0]


@pytest.mark.parametrize(("page", "least"), [(README, 10), (SENDERS, 6)], ids=["README", "senders"])
def test_session_prints_as_shown(page: Path, least: int) -> None:
    """If only wording changed, `python -m tests.readme` rewrites the pages."""
    text = page.read_text()
    assert len(commands(text)) >= least
    assert constant(with_output(text)).splitlines() == constant(text).splitlines()


def test_every_command_shown_exists() -> None:
    table = re.findall(r"^\| (`.*?`) \| [A-Z]", TEXT, re.MULTILINE)
    shown = {words.split()[0] for row in table for words in re.findall(r"`([a-z]+[^`]*)`", row)}
    assert len(shown) > 15
    assert shown | {shlex.split(line)[1] for line in commands(TEXT)} <= set(COMMANDS)


@pytest.mark.parametrize("line", re.findall(r"^podledger .*$", "\n".join(blocks("sh")), re.MULTILINE))
def test_parser_accepts_every_shell_example(line: str) -> None:
    words = shlex.split(line.replace("$(cat /mnt/elsewhere/root.digest)", f"1:{'0' * 64}"))[1:]
    parse(words[: words.index(">")] if ">" in words else words)


def test_every_command_is_documented() -> None:
    documented = (ROOT / "docs" / "commands.md").read_text()
    assert {name for name in set(COMMANDS) if f"### `{name}" not in documented} == set()


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the long options that a parser and its subparsers define, without the shared ones."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            yield from (option for one in action.choices.values() for option in options(one))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str) -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    section = re.split(r"^##", page.split(f"### `{name}", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    parser = Parser()
    import_module(f"podledger.cli.commands.{COMMANDS[name].module}").add_arguments(parser)
    shared = {"--help", "--db", "--ledger", "--json"}
    assert [option for option in options(parser) if option not in shared and option not in section] == []


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_is_documented(outcome: str) -> None:
    assert f"| `{outcome}` | " in (ROOT / "docs" / "rules.md").read_text()
    assert f"`{outcome}`" in (ROOT / "docs" / "sql.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_event_is_documented(kind: str) -> None:
    assert f"`{kind}`" in (ROOT / "docs" / "rules.md").read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    documented = (ROOT / "docs" / "settings.md").read_text()
    for name, field in Settings.model_fields.items():
        row = next(line for line in documented.splitlines() if line.startswith(f"| `PODLEDGER_{name.upper()}` "))
        assert str(field.description) in row
        default = field.default if not isinstance(field.default, frozenset) else list(field.default)
        assert default is None or f"`{default}`" in row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_and_tests_exist(page: Path) -> None:
    """A page names a file from the top of the checkout, and a test as `tests/FILE.py::TEST`."""
    named = re.findall(
        r"`((?:podledger|tests|benchmarks|migrations|docs)/[\w./-]+\.\w+)(?:::(\w+))?`", page.read_text()
    )
    assert [path for path, _ in named if not (ROOT / path).is_file()] == []
    tests = [(path, name) for path, name in named if name]
    assert [name for path, name in tests if f"def {name}(" not in (ROOT / path).read_text()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_test_file_named_without_a_folder_exists(page: Path) -> None:
    named = re.findall(r"`(test_\w+\.py)`", page.read_text())
    assert [name for name in named if not (ROOT / "tests" / "faults" / name).is_file()] == []


def test_architecture_page_names_modules_that_exist() -> None:
    """The page names a module as `podledger/store/append.py`, or for short as store/append."""
    package = ROOT / "podledger"
    layers = "|".join(sorted(path.stem for path in package.iterdir()))
    named = re.findall(rf"(?<![\w/])((?:{layers})/\w+)", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 10
    assert [name for name in named if not ((package / name).is_dir() or (package / f"{name}.py").is_file())] == []


@pytest.mark.parametrize("folder", ["podledger", "tests", "benchmarks", "migrations"])
def test_pages_named_in_sources_exist(folder: str) -> None:
    for source in (ROOT / folder).rglob("*.py"):
        named = re.findall(r"\bdocs/[\w/-]+\.md\b", source.read_text())
        assert [page for page in named if not (ROOT / page).is_file()] == [], source
