"""Test the complete senders of `docs/protocol.md`: copied from the page and run, they record what the page says."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from podledger import Ledger, Receiver, prepare_spawn
from tests.sockets import parent_at
from tests.waiting import wait_until

PAGE = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
REPORTED = ["turn_ended", "turn_ended", "errored", "shut_down"]
TIMEOUT_S = 60


class Example(NamedTuple):
    """A program of the page: its language there, the program that it needs, and the commands that run it."""

    language: str
    needs: str
    commands: list[list[str]]


EXAMPLES = [
    Example("bash", "socat", [["bash", "report.sh"]]),
    Example("js", "node", [["node", "report.mjs"]]),
    Example("rust", "rustc", [["rustc", "report.rs"], ["./report"]]),
]


def copied(example: Example, folder: Path) -> None:
    """Copy the program from the page into the file that its first line names."""
    [text] = re.findall(rf"^```{example.language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (folder / text.split(maxsplit=2)[1]).write_text(text)


async def run(example: Example, folder: Path, environment: Mapping[str, str]) -> None:
    """Run the program in `folder`; it must succeed."""
    for command in example.commands:
        child = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=os.environ | environment, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(TIMEOUT_S):
            _, errors = await child.communicate()
        assert child.returncode == 0, errors.decode()


@pytest.fixture(params=EXAMPLES, ids=lambda example: example.language)
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Example:
    chosen: Example = request.param
    if shutil.which(chosen.needs) is None:
        pytest.skip(f"{chosen.needs} is not installed")
    copied(chosen, tmp_path)
    return chosen


async def test_copied_program_records_its_reports(example: Example, tmp_path: Path) -> None:
    spawn = prepare_spawn("coder", tmp_path / "root.sock")
    async with Ledger.open(tmp_path / "l.db", "root") as ledger, Receiver(ledger, tmp_path / "root.sock"):
        await ledger.append(spawn.spawned())
        await run(example, tmp_path, spawn.environment)
        _, *entries = [entry async for entry in ledger.entries(pod="coder")]
        assert [entry.kind for entry in entries] == REPORTED
        assert {entry.subject for entry in entries} == {spawn.incarnation}
        assert [entry.sequence for entry in entries] == [1, 2, 3, 4]
        assert not await ledger.gaps()
        assert await ledger.pods() == []


async def test_copied_program_reports_to_the_original_runtime(example: Example, tmp_path: Path) -> None:
    spawn = prepare_spawn("coder", tmp_path / "root.sock")
    async with parent_at(tmp_path / "root.sock", history_bytes=100_000) as parent:
        await run(example, tmp_path, spawn.environment)
        await wait_until(lambda: len(parent.lines) == len(REPORTED))
    assert [event["kind"] for event in parent.events] == REPORTED
    assert {event["stamp"]["ack"] for event in parent.events} == {False}
