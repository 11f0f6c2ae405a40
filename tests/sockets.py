"""Sockets of other pods: a parent that accepts reports, a silent socket and a dead one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

SNAPSHOT = {
    "entries": [],
    "greeting": {"pod_name": "top", "cwd": "/", "provider": "x", "model": "", "scope_summary": "", "tools": []},
    "status": "idle",
}


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Create a folder whose path leaves room in a socket's address."""
    folder = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Parent:
    """A pod that greets first, as the protocol requires, and keeps the lines that it receives."""

    def __init__(self, path: Path, history_bytes: int) -> None:
        self.path = str(path)
        self.lines: list[bytes] = []
        self._history_bytes = history_bytes

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet a client and keep its lines."""
        snapshot = SNAPSHOT | {"entries": ["x" * self._history_bytes]}
        for event in ({"event": "alert", "data": {}}, {"event": "snapshot", "data": snapshot}):
            writer.write(json.dumps(event).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            self.lines += [line async for line in reader]
        writer.close()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events reported so far."""
        return [json.loads(line)["params"] for line in self.lines]

    @property
    def reported_pods(self) -> list[str]:
        """The pods whose delegation was reported so far."""
        return [event["sub_pod"] for event in self.events]


@contextlib.asynccontextmanager
async def parent_at(path: Path, *, history_bytes: int = 0) -> AsyncIterator[Parent]:
    """Run a parent that listens on `path`."""
    parent = Parent(path, history_bytes)
    server = await asyncio.start_unix_server(parent.serve, path)
    try:
        yield parent
    finally:
        server.close()
        await server.wait_closed()
        Path(path).unlink(missing_ok=True)


@contextlib.contextmanager
def silent_at(path: Path, backlog: int = 16) -> Iterator[socket.socket]:
    """Listen on a socket and never answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield listener
    Path(path).unlink(missing_ok=True)


def dead_at(path: Path) -> Path:
    """Create a socket file that nobody listens on, as a crashed pod leaves it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
    return path
