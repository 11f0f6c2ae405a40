"""One client's connection: what it sent and was not taken yet, and the answer that it has not read yet."""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

from podledger.core.entries import Sender
from podledger.server.framing import LineBuffer

CHUNK_BYTES: Final = 16 << 10
"""How much is read at once, and how much of an unfinished line any connection may hold."""

LONG_CHUNK_BYTES: Final = 64 << 10
_CREDENTIALS = struct.Struct("3i")
_NOTHING = memoryview(b"")


class Peer:
    """A sending process, and how much it takes up: connections, lines that wait for commit, long lines begun."""

    __slots__ = ("connections", "long_lines", "pid", "queued")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.connections = 0
        self.queued = 0
        self.long_lines = 0


class ClientConnection:
    """A client's socket, which never blocks.

    `opened_at` is when it connected, `heard_at` when it last sent a whole line, or connected, on the monotonic clock.
    `ended` says that nothing more will come, `closed` that the socket is. Of its answers one at most is kept until the
    client reads it.
    """

    __slots__ = (
        "asked_at",
        "closed",
        "ended",
        "fd",
        "heard_at",
        "lines",
        "listening",
        "long_since",
        "opened_at",
        "peer",
        "sender",
        "sock",
        "unsent",
        "waiting",
    )

    def __init__(self, sock: socket.socket, sender: Sender, peer: Peer, max_frame_bytes: int) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.sender = sender
        self.peer = peer
        self.lines = LineBuffer(max_frame_bytes)
        self.opened_at = self.heard_at = time.monotonic()
        self.ended = False
        self.closed = False
        self.listening = False
        self.waiting = False
        self.long_since: float | None = None
        self.asked_at: float | None = None
        self.unsent = _NOTHING

    def receive(self) -> None:
        """Take in what has arrived, at most a chunk."""
        try:
            data = self.sock.recv(CHUNK_BYTES if self.long_since is None else LONG_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # a client that closes before it has read our answers: what it sent came first
            data = b""
        if data:
            self.lines.feed(data)
        else:
            self.ended = True

    def answer(self, frame: bytes, *, whole: bool = False) -> None:
        """Send an answer. To a client that does not read, none is sent, unless it must be kept `whole`."""
        if self.closed or (self.unsent and not whole):
            return
        self.unsent = memoryview(bytes(self.unsent) + frame if self.unsent else frame)
        self.flush()
        if len(self.unsent) == len(frame) and not whole:
            self.unsent = _NOTHING

    def close(self) -> None:
        """Let go of the socket; what was received is still there to be taken."""
        self.closed = True
        self.unsent = _NOTHING
        self.sock.close()

    def flush(self) -> None:
        """Send on what is kept of an answer; to a client that is gone there is nothing to send."""
        try:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self.unsent = _NOTHING


def attested(sock: socket.socket) -> Sender:
    """Who is at the other end, as the kernel says."""
    size = _CREDENTIALS.size
    return Sender(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
