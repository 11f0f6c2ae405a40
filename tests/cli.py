"""Run the command line: in this process, which is quick, in a process of its own, or on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from podledger.cli import main


class Result(NamedTuple):
    """The output of a command, and its exit status."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Return the one JSON document that it printed."""
        return json.loads(self.out)

    def jsons(self) -> list[Any]:
        """Return the JSON documents that it printed, one a line."""
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


class OnTerminal(NamedTuple):
    """What a command wrote to a terminal, and what it wrote to a pipe instead."""

    terminal: str
    piped: str


def on_terminal(
    *words: object, folder: Path, columns: int, pipe_stdout: bool = False, pipe_stderr: bool = False, **environment: str
) -> OnTerminal:
    """Run a command on a terminal of that width, except for the streams that are piped."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "podledger", *map(str, words)],
        cwd=folder,
        env=clean_environment() | {"TERM": "xterm-256color"} | environment,
        stdin=theirs,
        stdout=subprocess.PIPE if pipe_stdout else theirs,
        stderr=subprocess.PIPE if pipe_stderr else theirs,
        text=True,
    ) as process:
        os.close(theirs)
        written: list[bytes] = []
        reader = threading.Thread(target=lambda: written.extend(_terminal_output(ours)))
        reader.start()
        piped = "".join(stream.read() for stream in (process.stdout, process.stderr) if stream)
        process.wait(60)
        reader.join()
    os.close(ours)
    return OnTerminal(b"".join(written).decode().replace("\r\n", "\n"), piped)


def _terminal_output(descriptor: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # Linux ends a terminal without writers with EIO
        while data := os.read(descriptor, 1 << 16):
            yield data


def clean_environment() -> dict[str, str]:
    """Return the environment of this process without podledger's variables, with this checkout on the path."""
    unwanted = ("PODLEDGER_", "COLUMNS", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return kept | {"PYTHONPATH": str(Path(__file__).parent.parent)}


class _Stream(io.TextIOWrapper):
    """A standard stream in memory."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", write_through=True)

    def text(self) -> str:
        """Return the text that was written."""
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
