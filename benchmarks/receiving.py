"""Row 4: the socket, one connection per event as real senders do, compared with a bare asyncio server.

Row 9: the socket with acknowledgements, compared with itself without them.
"""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks import workload
from benchmarks.figures import Figures
from benchmarks.places import Places
from podledger import Stamper
from podledger.client.connection import ReceiverConnection
from podledger.client.sender import asking_line, event_line

Lines = Sequence[tuple[str, bytes]]
"""Stamped events: the id of each stamp, and the line."""

CLIENTS = 4
UNANSWERED = 64
"""How many connections of one client wait for their answer at the same time."""

IN_FLIGHT = 1_000
"""How many events a client sends on a held connection before it reads their answers."""

STAMPED, ANSWERED, HELD = "podledger, stamped", "podledger, acknowledged", "podledger, held connection, acknowledged"
BARE, PROTOCOL, OURS = "bare asyncio server", "bare asyncio server, protocol", "podledger, socket"


def send_all(path: str, lines: Sequence[bytes]) -> None:
    """Send each line on its own connection: connect, read the snapshot, write, close."""
    for line in lines:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sending:
            sending.connect(path)
            while not sending.recv(65536).endswith(b"\n"):
                pass
            sending.sendall(line)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start a server; yield its process and output once it listens."""
    command = [sys.executable, "-m", "benchmarks.servers", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process, process.stdout


def send_stamped(path: str, lines: Lines) -> None:
    """Send each line on its own connection, and read no answers."""
    send_all(path, [line for _, line in lines])


def send_answered(path: str, lines: Lines) -> None:
    """Send each line on its own connection, and close it once its answer has arrived."""
    open_now: deque[socket.socket] = deque()
    for _, line in lines:
        sending = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sending.connect(path)
        _read_line(sending)
        sending.sendall(line)
        open_now.append(sending)
        if len(open_now) == UNANSWERED:
            _finish(open_now.popleft())
    while open_now:
        _finish(open_now.popleft())


def _finish(sending: socket.socket) -> None:
    with sending:
        _read_line(sending)


def _read_line(sending: socket.socket) -> None:
    while not sending.recv(65536).endswith(b"\n"):
        pass


def send_held(path: str, lines: Lines) -> None:
    """Send every line on one connection, many before their answers are read."""
    with ReceiverConnection(path) as connection:
        for start in range(0, len(lines), IN_FLIGHT):
            part = dict(lines[start : start + IN_FLIGHT])
            connection.send(b"".join(part.values()))
            assert len(list(connection.answers(part, within_s=60))) == len(part)


def rate(
    kind: str, path: Path, lines: Sequence[Any], *database: str, send: Callable[[str, Sequence[Any]], None] = send_all
) -> float:
    """Send lines from a few clients; return the events per second until the server has all of them."""
    context = multiprocessing.get_context("fork")
    clients = [context.Process(target=send, args=(str(path), lines[n::CLIENTS])) for n in range(CLIENTS)]
    with serving(kind, str(path), str(len(lines)), *database) as (_, output):
        started = time.perf_counter()
        for client in clients:
            client.start()
        assert output.readline() == "done\n"
        took = time.perf_counter() - started
        for client in clients:
            client.join()
    return len(lines) / took


def measure(figures: Figures, places: Places, *, repeats: int, count: int) -> None:
    """Alternate between the servers."""
    lines = [workload.wire_line(event) for event in workload.events(count)]
    for _ in range(repeats):
        figures.add(BARE, rate("bare", places.fresh("sock"), lines))
        figures.add(OURS, rate("podledger", places.fresh("sock"), lines, str(places.fresh())))
        figures.add(PROTOCOL, rate("protocol", places.fresh("sock"), lines))
    figures.compare(4, "the socket, compared with a bare asyncio server", OURS, BARE, at_least=0.80)
    figures.compare(4, "the same, compared with a server without asyncio's streams", OURS, PROTOCOL)


def measure_answers(figures: Figures, places: Places, *, repeats: int, count: int) -> None:
    """Alternate between senders that ask for no answers, ask for them, and ask for them on a held connection."""
    events, stamper = workload.events(count), Stamper()
    silent = [("", event_line(event, stamper)) for event in events]
    asking = [asking_line(event, stamper) for event in events]
    for _ in range(repeats):
        for name, lines, send in (
            (STAMPED, silent, send_stamped),
            (ANSWERED, asking, send_answered),
            (HELD, asking, send_held),
        ):
            figures.add(name, rate("podledger", places.fresh("sock"), lines, str(places.fresh()), send=send))
    figures.compare(
        9, "the socket with acknowledgements, compared with the same without", ANSWERED, STAMPED, at_least=0.9
    )
    figures.compare(9, "a held connection with acknowledgements, compared with that", HELD, STAMPED, at_least=3.0)
