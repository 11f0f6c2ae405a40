"""Row 4: the socket, one connection per event as real senders do, compared with a bare asyncio server."""

from __future__ import annotations

import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks import workload
from benchmarks.figures import Figures
from benchmarks.places import Places

CLIENTS = 4
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


def rate(kind: str, path: Path, lines: Sequence[bytes], *database: str) -> float:
    """Send lines from a few clients; return the events per second until the server has all of them."""
    context = multiprocessing.get_context("fork")
    clients = [context.Process(target=send_all, args=(str(path), lines[n::CLIENTS])) for n in range(CLIENTS)]
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
