"""The servers of row 4, each a process: `python -m benchmarks.servers podledger|bare|protocol SOCKET COUNT [DATABASE]`.

Each prints `ready` once it listens, and `done` once it has COUNT events: podledger when they are committed, the bare
servers when they have read them. The bare servers are a few lines with asyncio's streams or with a protocol.
"""

from __future__ import annotations

import asyncio
import sys

from podledger import Ledger, Receiver

SNAPSHOT = (
    b'{"event":"snapshot","data":{"entries":[],"greeting":{"pod_name":"root","cwd":"/","provider":"bare","model":"",'
    b'"scope_summary":"","tools":[]},"status":"idle"}}\n'
)


async def serve_podledger(path: str, count: int, database: str) -> None:
    """Receive into a ledger."""
    done = asyncio.Event()
    async with Ledger.open(database, "root") as ledger:
        until = (await ledger.head()).head_seq + count
        ledger.on_commit(lambda appended: done.set() if appended.head.head_seq >= until else None)
        async with Receiver(ledger, path):
            await _report(done)


class Dropping(asyncio.Protocol):
    """Sends the snapshot, reads lines and discards them."""

    left = 0
    done: asyncio.Event

    def __init__(self) -> None:
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the snapshot."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(SNAPSHOT)

    def data_received(self, data: bytes) -> None:
        """Count lines."""
        self._line += data
        *lines, self._line = self._line.split(b"\n")
        Dropping.left -= len(lines)
        if Dropping.left <= 0:
            Dropping.done.set()


async def serve_bare(path: str, count: int) -> None:
    """Read and discard, with asyncio's streams."""
    left, done = count, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        writer.write(SNAPSHOT)
        await writer.drain()
        if await reader.readline():
            left -= 1
        writer.close()
        if left <= 0:
            done.set()

    async with await asyncio.start_unix_server(answer, path, backlog=1024):
        await _report(done)


async def serve_protocol(path: str, count: int) -> None:
    """Read and discard, with a protocol."""
    Dropping.left, Dropping.done = count, asyncio.Event()
    async with await asyncio.get_running_loop().create_unix_server(Dropping, path, backlog=1024):
        await _report(Dropping.done)


async def _report(done: asyncio.Event) -> None:
    print("ready", flush=True)
    await done.wait()
    print("done", flush=True)


if __name__ == "__main__":
    kind, socket_path, events, *rest = sys.argv[1:]
    match kind:
        case "podledger":
            asyncio.run(serve_podledger(socket_path, int(events), rest[0]))
        case "bare":
            asyncio.run(serve_bare(socket_path, int(events)))
        case _:
            asyncio.run(serve_protocol(socket_path, int(events)))
