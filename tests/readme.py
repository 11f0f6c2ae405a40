"""The terminal sessions of README.md and docs/senders.md: run their commands in order.

`python -m tests.readme` rewrites both pages with the current output of the commands.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.runner import podledger, podledger_process, start
from tests.waiting import block_until

README: Final = Path(__file__).parent.parent / "README.md"
SENDERS: Final = README.parent / "docs" / "senders.md"
_BLOCKS: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)
_VARYING: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+|process \d+|user \d+|\b[0-9a-f]{64}\b")
"""The parts that differ from run to run: times, senders, digests."""


def constant(text: str) -> str:
    """Replace what differs from run to run, and fold spaces, so that two runs compare equal."""
    return re.sub(" +", " ", _VARYING.sub("…", text))


def commands(page: str) -> list[str]:
    """Return the command lines of the session, without the prompt."""
    return [line[2:] for block in _BLOCKS.findall(page) for line in block.splitlines() if line.startswith("$ ")]


def with_output(page: str) -> str:
    """Run the session in an empty folder; return the page with the output printed now."""
    with tempfile.TemporaryDirectory(prefix="podledger-") as folder, _session(Path(folder)) as session:
        return _BLOCKS.sub(lambda block: f"```console\n{session.run(block[1])}```", page)


class _Session:
    """A folder with a ledger, and the servers that the session started in the background."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.servers: list[subprocess.Popen[str]] = []

    def run(self, block: str) -> str:
        return "".join(f"$ {line}\n{self._output(line)}" for line in commands(f"```console\n{block}```"))

    def _output(self, line: str) -> str:
        words = shlex.split(line, comments=True)[1:]
        if words[-1] == "&":
            self.servers.append(start(*words[:-1], folder=self._folder))
            assert self.servers[-1].stdout is not None
            return self.servers[-1].stdout.readline()
        logged = self._logged()
        run = podledger_process if words[0] == "send" else podledger  # the ledger shows who sent a report
        done = run(*words, folder=self._folder, status=None)
        if words[0] == "send":
            block_until(lambda: self._logged() > logged)
        return "".join(f"{text.rstrip()}\n" for text in (done.out + done.err).splitlines())

    def _logged(self) -> int:
        return len(podledger("events", "--json", folder=self._folder, status=None).out.splitlines())


@contextmanager
def _session(folder: Path) -> Iterator[_Session]:
    session = _Session(folder)
    try:
        yield session
    finally:
        for server in session.servers:
            server.terminate()
            server.communicate()


if __name__ == "__main__":
    for page in (README, SENDERS):
        page.write_text(with_output(page.read_text()))
