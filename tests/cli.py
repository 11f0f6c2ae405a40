"""The command line as a user types it: in this process, which is quick, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from podledger.cli import main


class Result(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """The one JSON document that it printed."""
        return json.loads(self.out)

    def jsons(self) -> list[Any]:
        """The JSON documents that it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def podledger(*words: object, folder: Path, stdin: str = "", **environment: str) -> Result:
    """Run a command in `folder`, in this process."""
    out, err = _Stream(), _Stream()
    with _place(folder, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.stdin = _Stream(stdin.encode(errors="surrogateescape"))
        try:
            status = main([str(word) for word in words])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        finally:
            sys.stdin = sys.__stdin__
    return Result(status, out.text(), err.text())


def start(*words: object, folder: Path) -> subprocess.Popen[str]:
    """Start a command in `folder`, in a process of its own."""
    command = [sys.executable, "-m", "podledger", *map(str, words)]
    return subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, text=True)


def clean_environment() -> dict[str, str]:
    """This process's environment without podledger's variables, with this checkout on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PODLEDGER_")}
    return kept | {"PYTHONPATH": str(Path(__file__).parent.parent)}


class _Stream(io.TextIOWrapper):
    """A standard stream in memory."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)

    def text(self) -> str:
        """What was written."""
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


@contextlib.contextmanager
def _place(folder: Path, environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_environment() | environment)
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
