"""The receiver: a pod's socket, from which every report goes into the ledger and nothing is dropped in silence.

It drives its sockets itself, without the event loop's transports: a transport that cannot write an answer lets go of
what it has not read yet, and a client that reports and goes reads no answers.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from podledger.core.entries import Sender
from podledger.core.protocol import snapshot_frame
from podledger.ledger import Ledger
from podledger.server.acceptor import Acceptor, files_left
from podledger.server.connection import ClientConnection, Peer
from podledger.server.ingest_queue import IngestQueue
from podledger.server.limits import Limits
from podledger.server.reader import Reader
from podledger.server.responses import Responses
from podledger.server.socket_file import BACKLOG, SocketFile

__all__ = ["Limits", "Receiver"]

SWEEP_S: Final = 0.5
"""How often is looked for those who have been silent for too long."""

PATIENCE_S: Final = 1.0
"""How long a connection must have been silent, or open, before it may be closed to make room for another."""

HOG_SHARE: Final = 8
"""A process that holds more than this part of all connections is the first to give one up."""


class Receiver:
    """Receives on `socket` for an open ledger: an asynchronous context manager.

    While storage fails, `healthy` is false and `trouble` says why; nothing is accepted or read then, what was read is
    kept, and it all goes on once storage works again. Leaving the context removes the socket, takes in what clients are
    still sending (for `limits.drain_grace_s` seconds at most) and commits what was read.

    When `limits.max_connections` are open, the next one takes the place of one that has sent nothing whole for a
    second, first of the process that holds most. If there is none, the oldest of that process must go, if it holds more
    than an eighth of all; else the newcomer waits in the kernel's queue.

    Entering the context raises:
        StorageError: the ledger cannot be written.
        SocketError: another receiver listens there, something else is in the way, or the path will not do.
    """

    def __init__(
        self,
        ledger: Ledger,
        socket: str | os.PathLike[str],
        *,
        limits: Limits = Limits(),  # noqa: B008 - immutable
    ) -> None:
        self.path = Path(socket)
        self._ledger = ledger
        self._limits = limits
        self._reception: _Reception | None = None

    @property
    def healthy(self) -> bool:
        """Whether what is received can be committed."""
        return not self.trouble

    @property
    def lost(self) -> int:
        """How many reports were read and, storage failing to the end, never committed; told when it is closed."""
        return self._reception.committer.lost if self._reception else 0

    @property
    def trouble(self) -> str:
        """Why storage refuses what was received; empty if it does not."""
        return self._reception.committer.trouble if self._reception else ""

    async def __aenter__(self) -> Self:
        self._ledger.database.check_writable()
        self._reception = _Reception(self._ledger, SocketFile.claim(self.path), self._limits)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reception:
            await self._reception.close()


class _Reception:
    """A receiver at work: its connections, and the parts that serve them."""

    def __init__(self, ledger: Ledger, file: SocketFile, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._snapshot = snapshot_frame(ledger.name)
        self._max_connections = min(limits.max_connections, files_left())
        self._connections: set[ClientConnection] = set()
        self._peers: dict[int, Peer] = {}
        self._emptied = asyncio.Event()
        self._stopping = False
        self.committer = IngestQueue(ledger, limits, self._go_on)
        self._answers = Responses(ledger, self.committer, limits, answered=self._answered, hang_up=self._hang_up)
        self._intake = Reader(
            ledger.name,
            self.committer,
            limits,
            refuse=self._answers.refuse,
            ask=self._answers.ask,
            end=self._hang_up,
        )
        self._door = Acceptor(file.listener, limits.allowed_uids, make_room=self._make_room, admit=self._admit)
        self._door.open()
        self._sweep()

    async def close(self) -> None:
        """Let nobody else in, take in what is being sent, and commit what was read."""
        self._stopping = True
        self._file.remove()
        try:
            self._door.accept(BACKLOG)
            self._door.shut()
            if self._connections:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._emptied.wait(), self._limits.drain_grace_s)
        finally:
            await self._finish()

    async def _finish(self) -> None:
        self._sweeper.cancel()
        try:
            await self._answers.close()
            for connection in list(self._connections):
                self._intake.read(connection)
                self._hang_up(connection)
            self._intake.take_all()
            await self.committer.finish(self._limits.drain_grace_s)
        finally:
            self._file.close()

    def _admit(self, sock: socket.socket, sender: Sender) -> None:
        peer = self._peers.get(sender.pid) or Peer(sender.pid)
        self._peers[sender.pid] = peer
        peer.connections += 1
        connection = ClientConnection(sock, sender, peer, self._limits.max_frame_bytes)
        self._connections.add(connection)
        with suppress(OSError):  # it may be gone already; what it sent is read all the same
            sock.send(self._snapshot)
        self._intake.start(connection)

    def _hang_up(self, connection: ClientConnection) -> None:
        if connection.closed:
            return
        self._intake.stop(connection)
        self._answers.forget(connection)
        connection.close()
        connection.peer.connections -= 1
        self._connections.discard(connection)
        if not self._stopping:
            self._door.open()
        elif not self._connections:
            self._emptied.set()

    def _answered(self, connection: ClientConnection) -> None:
        self._intake.resume(connection)

    def _go_on(self) -> None:
        """A batch was committed, or storage has begun to fail."""
        if self.committer.trouble:
            self._door.shut()
            return
        self._intake.go_on()
        self._answers.go_on()
        if not self._stopping:
            self._door.open()

    def _make_room(self) -> bool:
        """Whether there is room for one more connection, if need be by closing another."""
        if self.committer.trouble:
            return False
        if len(self._connections) < self._max_connections:
            return True
        now = time.monotonic()
        silent = [each for each in self._connections if each.listening and now - each.heard_at > PATIENCE_S]
        silent.sort(key=lambda each: (-each.peer.connections, each.heard_at))
        return any(self._close_silent(each) for each in silent) or self._close_hog()

    def _close_silent(self, connection: ClientConnection) -> bool:
        """Close a connection, unless it turns out to have sent something just now."""
        heard_at = connection.heard_at
        self._intake.read(connection)
        if connection.heard_at != heard_at or not connection.listening:
            return connection.closed
        self._intake.cut(connection, f"not finished within {time.monotonic() - heard_at:.0f} s")
        self._hang_up(connection)
        return True

    def _close_hog(self) -> bool:
        """Close a connection of a process that holds too many, whatever it may still have to say."""
        most = max(self._peers.values(), key=lambda peer: peer.connections)
        oldest = min((each for each in self._connections if each.peer is most), key=lambda each: each.opened_at)
        is_old = time.monotonic() - oldest.opened_at > PATIENCE_S
        if not is_old or most.connections <= self._max_connections // HOG_SHARE or self.committer.is_overfull:
            return False
        text = f"its process held {most.connections} connections, too many"
        self._door.warn("hog", f"closing connections of process {most.pid}: {text}")
        self._intake.cut(oldest, f"not read to its end: {text}")
        self._hang_up(oldest)
        return True

    def _sweep(self) -> None:
        every_s = min(SWEEP_S, self._limits.idle_timeout_s / 2)
        self._sweeper = self._loop.call_later(every_s, self._sweep)
        earliest = time.monotonic() - self._limits.idle_timeout_s
        for connection in [each for each in self._connections if each.listening and each.heard_at < earliest]:
            self._close_silent(connection)
        self._intake.cut_stalled()
        self._answers.sweep()
        self._peers = {pid: peer for pid, peer in self._peers.items() if peer.connections or peer.queued}
        if not self._stopping:
            self._door.open()
