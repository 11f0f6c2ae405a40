"""Run the command line: in this process, which is quick, in a process of its own, or on a terminal."""

from __future__ import annotations

import asyncio
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
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

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


def podledger(
    *words: object, folder: Path | None = None, stdin: str | bytes = "", status: int | None = 0, **environment: str
) -> Result:
    """Run a command in `folder`, in this process; `status` is the exit status that it must have, or None for any.

    A test with an event loop can call it too, except for `serve` and for `import`, which handle signals.
    """
    data = stdin if isinstance(stdin, bytes) else stdin.encode(errors="surrogateescape")
    out, err = _Stream(), _Stream()
    with _place(folder, environment), _streams(_Stream(data), out, err):
        returned = _exit_status([str(word) for word in words])
    return _checked(Result(returned, out.text(), err.text()), status)


def podledger_json(*words: object, folder: Path | None = None, stdin: str | bytes = "", status: int | None = 0) -> Any:
    """Run a command with `--json` in this process; return the document that it prints."""
    return podledger(*words, "--json", folder=folder, stdin=stdin, status=status).json()


def podledger_process(
    *words: object,
    folder: Path | None = None,
    stdin: str = "",
    stdout: int | IO[Any] = subprocess.PIPE,
    status: int | None = 0,
    **environment: str,
) -> Result:
    """Run a command in a process of its own: for its locks, memory, time zone or signals."""
    done = subprocess.run(
        _command(words),
        cwd=folder,
        env=clean_environment() | environment,
        input=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    return _checked(Result(done.returncode, done.stdout or "", done.stderr), status)


def start(*words: object, folder: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own; its standard output is a pipe."""
    return subprocess.Popen(
        _command(words), cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, text=True, **options
    )


class OnTerminal(NamedTuple):
    """The output of a command on a terminal, and the output that went to a pipe instead."""

    terminal: str
    piped: str


def on_terminal(
    *words: object, folder: Path, columns: int, pipe_stdout: bool = False, pipe_stderr: bool = False, **environment: str
) -> OnTerminal:
    """Run a command on a terminal of that width, except for the streams that are piped."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        _command(words),
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


def _command(words: Iterable[object]) -> list[str]:
    return [sys.executable, "-m", "podledger", *map(str, words)]


def _exit_status(words: list[str]) -> int:
    if asyncio._get_running_loop() is None:
        return _main(words)
    with ThreadPoolExecutor(1) as thread:  # a thread has one event loop at a time
        return thread.submit(_main, words).result()


def _main(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as exit_:
        return int(exit_.code or 0)


def _checked(result: Result, status: int | None) -> Result:
    assert status in (None, result.status), result
    return result


@contextlib.contextmanager
def _streams(stdin: _Stream, stdout: _Stream, stderr: _Stream) -> Iterator[None]:
    before, sys.stdin = sys.stdin, stdin
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            yield
    finally:
        sys.stdin = before


@contextlib.contextmanager
def _place(folder: Path | None, environment: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_environment() | environment)
    try:
        with contextlib.chdir(folder or Path()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
