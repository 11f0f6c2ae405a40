"""The receiver: a pod's socket, from which every report goes into the ledger and nothing is dropped silently.

It drives its sockets itself, without the event loop's transports: a transport that cannot write an answer drops the
bytes that it has not read yet, and a client that reports and leaves reads no answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from podledger.core.entries import Sender
from podledger.core.protocol import snapshot_frame
from podledger.core.text import pluralize
from podledger.host.origin import SenderOrigin
from podledger.host.processes import AncestryReader
from podledger.ledger import Ledger
from podledger.server.acceptor import Acceptor, files_left
from podledger.server.connection import ClientConnection, Peer
from podledger.server.ingest_queue import IngestQueue
from podledger.server.limits import Limits
from podledger.server.reader import Reader
from podledger.server.responses import Responses
from podledger.server.socket_file import BACKLOG, SocketFile

__all__ = ["Limits", "Receiver"]

logger = logging.getLogger("podledger.receiver")

MAX_DRAIN_S: Final = 30.0
BARREN_S: Final = 1.0
"""How long a stopping receiver reads clients that have left, at most, and how long without a report from any."""

DRAIN_POLL_S: Final = 0.1
"""How often it looks whether such clients are still there."""

SWEEP_S: Final = 0.5
"""How often to look for clients that have been silent for too long."""

PATIENCE_S: Final = 1.0
"""How long a connection must have been silent, or open, before it may be closed to make room for another."""

LARGE_SHARE: Final = 8
"""Of a process that holds more than this part of all places, an eighth, a tenth of that time is enough."""

MAX_WAITING: Final = 128
"""How many accepted clients may wait for a place; then no more are accepted."""


class Receiver:
    """Receives on `socket` for an open ledger: an asynchronous context manager.

    While the storage fails, `healthy` is false and `trouble` says why. The receiver then accepts no client and reads no
    lines, keeps those that it has read, and goes on once the storage works again. When you leave the context, it
    removes the socket, reads the lines that clients are still sending (for `limits.drain_grace_s` seconds at most)
    and commits them.

    When `limits.max_connections` are open, the next one replaces one that has sent no whole line for a second, first
    one of the process that holds most. If there is none, the oldest connection of that process must go, if the process
    holds more than an eighth of all. Otherwise the newcomer waits in the kernel's queue.

    Entering the context raises:
        StorageError: the ledger cannot be written.
        SocketError: another receiver listens there, something else is in the way, or the path cannot be used.
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
        """Whether received reports can be committed."""
        return not self.trouble

    @property
    def lost(self) -> int:
        """How many reports were read and could not be committed by the end; it is known when the context is left."""
        return self._reception.queue.lost if self._reception else 0

    @property
    def unread_bytes(self) -> int:
        """How many bytes clients had sent that were not read by the end; it is known when the context is left."""
        return self._reception.unread_bytes if self._reception else 0

    @property
    def trouble(self) -> str:
        """Why the storage refuses received reports; empty if it does not."""
        return self._reception.queue.trouble if self._reception else ""

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
    """A running receiver: its connections, each served by a task, and the parts that they share."""

    def __init__(self, ledger: Ledger, file: SocketFile, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._snapshot = snapshot_frame(ledger.name)
        self._max_connections = min(limits.max_connections, files_left())
        self._connections: set[ClientConnection] = set()
        self._waiting: list[tuple[socket.socket, Sender, Peer]] = []
        self._is_admitting = False
        self._peers: dict[int | None, Peer] = {}
        self._ancestries = AncestryReader()
        self._emptied = asyncio.Event()
        self._stopping = False
        self.unread_bytes = 0
        self.queue = IngestQueue(ledger.commits, limits)
        self._responses = Responses(ledger, self.queue, limits)
        self._reader = Reader(ledger.name, self.queue, self._responses, limits)
        self._acceptor = Acceptor(file.listener, limits.allowed_uids, make_room=self._may_accept, admit=self._admit)
        self._acceptor.resume()
        self._sweep()

    async def close(self) -> None:
        """Accept no more clients, read the lines that are still arriving, and commit them."""
        self._stopping = True
        self._file.remove()
        try:
            self._acceptor.accept(BACKLOG)
            self._acceptor.pause()
            for connection in list(self._connections):
                self._stop_if_idle(connection)
            await self._until_empty()
        finally:
            await self._finish()

    async def _finish(self) -> None:
        self._sweeper.cancel()
        try:
            await self._responses.close()
            for connection in list(self._connections):
                if connection.is_listening:
                    connection.receive()
                self.unread_bytes += connection.unread_bytes
                connection.stop()
            if self.unread_bytes:
                text = "%s of reports were not read, because their senders were still sending"
                logger.error(text, pluralize(self.unread_bytes, "byte"))
            await self._reader.finish()
            await self.queue.finish(self._limits.drain_grace_s)
            await self._until_empty()
        finally:
            for connection in list(self._connections):
                connection.close()
            for sock, _, _ in self._waiting:
                sock.close()
            self._file.close()

    async def _until_empty(self) -> None:
        """Wait until every client has left and was read to its end.

        A client that is still there delays this by `drain_grace_s` seconds. Those that have left, and will not send
        their reports again, are read as long as they bring reports, up to `MAX_DRAIN_S`.
        """
        until = time.monotonic() + self._limits.drain_grace_s
        most = time.monotonic() + max(MAX_DRAIN_S, self._limits.drain_grace_s)
        brought, brings_until = self.queue.reports, time.monotonic() + BARREN_S
        while self._connections and (now := time.monotonic()) < most:
            if self.queue.reports > brought:
                brought, brings_until = self.queue.reports, now + BARREN_S
            goes_on = not self.queue.trouble and now < brings_until
            if now >= until and not (goes_on and any(each.has_left for each in self._connections)):
                return
            self._emptied.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(DRAIN_POLL_S, max(0.0, until - now) or DRAIN_POLL_S)):
                    await self._emptied.wait()

    def _admit(self, sock: socket.socket, sender: Sender) -> None:
        """Serve a client, or let it wait for a place."""
        peer = self._peers.get(sender.pid) or Peer(sender.pid, SenderOrigin(sender, self._ancestries))
        self._peers[sender.pid] = peer
        if self._has_place_for(peer):
            self._greet(sock, sender, peer)
        else:
            self._waiting.append((sock, sender, peer))

    def _greet(self, sock: socket.socket, sender: Sender, peer: Peer) -> None:
        peer.connections += 1
        with suppress(OSError):  # the client may have left already; its lines are read all the same
            sock.send(self._snapshot)
        connection = ClientConnection(sock, sender, peer, self._limits.max_frame_bytes, self._release)
        self._connections.add(connection)
        self._reader.start(connection)

    def _release(self, connection: ClientConnection) -> None:
        """Free the place of a closed connection for another one."""
        self._connections.discard(connection)
        connection.peer.connections -= 1
        if not self._stopping:
            self._resume()
        elif not self._connections:
            self._emptied.set()

    def _resume(self) -> None:
        """Admit clients that wait, those of the process with the fewest connections first, and accept others."""
        if self._is_admitting:  # to admit one may close another
            return
        self._is_admitting = True
        while self._waiting:
            first = min(self._waiting, key=lambda each: each[2].connections)
            if not self._has_place_for(first[2]):
                break
            self._waiting.remove(first)
            self._greet(*first)
        self._is_admitting = False
        self._acceptor.resume()

    def _may_accept(self) -> bool:
        """Return whether one more connection may be accepted; it may have to wait for a place."""
        return not self.queue.trouble and len(self._waiting) < MAX_WAITING

    def _has_place_for(self, newcomer: Peer) -> bool:
        """Return whether there is room for one more connection, if need be after closing another.

        A connection counts as active only while it brings reports: a client that asks and asks keeps nobody out.
        """
        if len(self._connections) < self._max_connections:
            return True
        now, share = time.monotonic(), self._max_connections // LARGE_SHARE
        earliest, earliest_of_large = now - PATIENCE_S, now - PATIENCE_S / 10
        idle = [
            each
            for each in self._connections
            if each.is_idle(earliest_of_large if each.peer.connections > share else earliest)
        ]
        idle.sort(key=lambda each: (-each.peer.connections, each.reported_at))
        return any(self._close_silent(each) for each in idle) or self._close_of_largest(newcomer)

    def _close_silent(self, connection: ClientConnection) -> bool:
        """Close a connection, unless it turns out to have sent a line, or to have ended, just now."""
        if connection.is_listening and (not connection.receive() or connection.lines.holds_message):
            connection.wake()
            return False
        self._reader.cut(connection, f"not finished within {time.monotonic() - connection.heard_at:.0f} s")
        connection.close()
        return True

    def _stop_if_idle(self, connection: ClientConnection) -> None:
        """Do not wait for a client that only holds its connection: later events are not acknowledged here."""
        if connection.confirms and connection.is_listening and not connection.owed:
            if connection.receive() and not connection.lines:
                connection.stop()
            else:
                connection.wake()

    def _close_of_largest(self, newcomer: Peer) -> bool:
        """Close the oldest connection of the process that holds most, in any state, unless it is the newcomer's."""
        largest = max(self._peers.values(), key=lambda peer: peer.connections)
        if largest.connections <= newcomer.connections or self.queue.is_overfull:
            return False
        oldest = min((each for each in self._connections if each.peer is largest), key=lambda each: each.opened_at)
        if time.monotonic() - oldest.opened_at <= PATIENCE_S:
            return False
        text = f"its process held {largest.connections} connections, and others waited"
        self._acceptor.warn("largest", f"closing connections of process {largest.pid}: {text}")
        self._reader.cut(oldest, f"not read to its end: {text}")
        oldest.close()
        return True

    def _sweep(self) -> None:
        """Close the connections that make others wait, and clean up; repeat every `SWEEP_S` seconds."""
        every_s = min(SWEEP_S, self._limits.idle_timeout_s / 2)
        self._sweeper = self._loop.call_later(every_s, self._sweep)
        earliest = time.monotonic() - self._limits.idle_timeout_s
        for connection in [each for each in self._connections if each.is_silent(earliest)]:
            self._close_silent(connection)
        self._limit_unread()
        self._reader.cut_stalled()
        self._responses.sweep()
        self._peers = {pid: peer for pid, peer in self._peers.items() if peer.connections or peer.queued}
        if not self._stopping:
            self._resume()

    def _limit_unread(self) -> None:
        """While clients leave too much unread, close the connection of the one that has read nothing for longest."""
        unread = sorted(
            (each for each in self._connections if each.outgoing), key=lambda each: each.outgoing.progress_at
        )
        while unread and sum(len(each.outgoing) for each in unread) > self._limits.max_unsent_bytes:
            unread.pop(0).close()
