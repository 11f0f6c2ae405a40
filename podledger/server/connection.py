"""One client's connection: its non-blocking socket, the received bytes, and its state."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Callable
from enum import Enum
from typing import Final

from podledger.core.entries import Origin, Sender
from podledger.server.framing import LineBuffer
from podledger.server.outgoing import Outgoing

CHUNK_BYTES: Final = 16 << 10
"""How much is read at once, and how much of an unfinished line any connection may hold."""

LONG_CHUNK_BYTES: Final = 64 << 10
"""How much is read at once of a long line."""

_CREDENTIALS = struct.Struct("3i")
_INT = struct.Struct("i")


class State(Enum):
    """The state of a connection: the event that it waits for.

    TAKING ──listen──► LISTENING ──the client sends──► TAKING
    TAKING ──ask──► ASKING ──give──► ANSWERING ──the client has read the answer──► TAKING
    TAKING ──answers are unread──► ANSWERING
    any ──stop──► STOPPED
    TAKING, STOPPED ──end──► ENDING ──the client has read every answer that it is owed──► CLOSED
    any ──close──► CLOSED
    """

    TAKING = "the lines that were read are being taken, or wait for their turn"
    LISTENING = "every line was taken; the client may send more"
    ASKING = "the client has asked for the registry"
    ANSWERING = "the client has not read the whole answer yet"
    STOPPED = "nothing more is read; lines that were read are still taken, and answered"
    ENDING = "every line was taken; the client has not read every answer yet"
    CLOSED = "nothing more is read or sent; lines that were read are still taken"


class Peer:
    """A sending process, and its share of the receiver: connections, queued lines, long lines that have begun."""

    __slots__ = ("connections", "long_lines", "origin", "pid", "queued")

    def __init__(self, pid: int | None, origin: Origin | None = None) -> None:
        self.pid = pid
        self.origin = origin
        self.connections = 0
        self.queued = 0
        self.long_lines = 0


class ClientConnection:
    """A connection that one task serves; others may ask for its state and close it.

    Times are on the monotonic clock: `opened_at` when the client connected, `received_at` when anything last arrived,
    `heard_at` when it last sent a whole line, `reported_at` when it last sent a report, `answered_at` when it was last
    given an answer; all are `opened_at` at first. `closed` is called once, when the socket is closed.

    `confirms` is true once a line asked for an answer after its commit. From then on the answers to all lines of the
    connection are sent in the order of the lines, and none is left out; `owed` counts those that are not sent yet.
    """

    __slots__ = (
        "_arrived",
        "_closed",
        "_fd",
        "_loop",
        "_sock",
        "_waiter",
        "answered_at",
        "confirms",
        "heard_at",
        "lines",
        "opened_at",
        "origin",
        "outgoing",
        "owed",
        "peer",
        "received_at",
        "reported_at",
        "sender",
        "state",
    )

    def __init__(
        self,
        sock: socket.socket,
        sender: Sender,
        peer: Peer,
        max_frame_bytes: int,
        closed: Callable[[ClientConnection], None],
    ) -> None:
        self.sender = sender
        self.peer = peer
        self.origin = peer.origin
        self.lines = LineBuffer(max_frame_bytes)
        self.state = State.TAKING
        self.confirms = False
        self.owed = 0
        self.opened_at = self.heard_at = self.reported_at = self.received_at = self.answered_at = time.monotonic()
        self._sock = sock
        self._fd = sock.fileno()
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._arrived: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.outgoing = Outgoing(sock, self._all_sent)

    def expect(self, arrived: Callable[[], None]) -> None:
        """Listen without a task: `arrived` is called when the client sends something or the connection closes."""
        self.state = State.LISTENING
        self._arrived = arrived
        self._loop.add_reader(self._fd, self.wake)

    def take(self) -> bool:
        """End listening; return False if nothing more is read."""
        self._arrived = None
        if self.state is State.LISTENING:
            self._loop.remove_reader(self._fd)
            self.state = State.TAKING
        return self.state is State.TAKING

    async def listen(self) -> bool:
        """Wait until the client sends something or goes away; return False if nothing more is read."""
        if self.state is not State.TAKING:
            return False
        self.state = State.LISTENING
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._fd, self.wake)
        await self._waiter
        return self.take()

    def wake(self) -> None:
        """End the wait of `listen`, `ask` or `answers_read`, or call the function that `expect` was given."""
        if self._arrived is not None:
            self._arrived()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def receive(self, size: int = CHUNK_BYTES) -> bool:
        """Add received bytes to `lines`, at most `size` of them; return False if nothing more will arrive."""
        if not self.reads:
            return False
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            return True
        except OSError:  # the client closed before it read our answers; its own bytes were read before this
            return False
        if data:
            self.received_at = time.monotonic()
            self.lines.feed(data)
        return bool(data)

    @property
    def has_ended(self) -> bool:
        """Whether everything that the client sent was received, and it has closed its side."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    @property
    def has_left(self) -> bool:
        """Whether the client has closed its socket; what it sent may still have to be read."""
        if not self.reads:
            return False
        poll = select.poll()
        poll.register(self._fd, 0)
        return any(ready & select.POLLHUP for _, ready in poll.poll(0))

    @property
    def unread_bytes(self) -> int:
        """How many bytes the client has sent that were not read."""
        if not self.reads:
            return 0
        return int(_INT.unpack(fcntl.ioctl(self._fd, termios.FIONREAD, bytes(_INT.size)))[0])

    @property
    def is_listening(self) -> bool:
        """Whether every line that was read is taken, and the client may send more."""
        return self.state is State.LISTENING

    @property
    def reads(self) -> bool:
        """Whether more may be read from the client."""
        return self.state not in (State.STOPPED, State.ENDING, State.CLOSED)

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed."""
        return self.state is State.CLOSED

    def is_silent(self, since: float) -> bool:
        """Return whether the client could have sent a whole line, or read its answers, and has not done so since."""
        if self.state in (State.ANSWERING, State.ENDING):
            return self.confirms and bool(self.outgoing) and self.outgoing.progress_at < since
        return self.is_listening and not self.owed and self.heard_at < since

    def is_idle(self, since: float) -> bool:
        """Return whether the client could have sent a report and has not done so after `since`."""
        return self.is_silent(since) or (self.is_listening and not self.owed and self.reported_at < since)

    async def ask(self) -> None:
        """Wait until the client has read the answer that `give` sends, or the connection reads no more."""
        if self.state is State.TAKING:
            self.state = State.ASKING
            self._waiter = self._loop.create_future()
            await self._waiter

    def give(self, answer: bytes) -> None:
        """Send the answer that the client asked for, as fast as it reads."""
        if self.state is State.ASKING:
            self.state, self.answered_at = State.ANSWERING, time.monotonic()
            self.outgoing.send(answer)

    @property
    def is_behind(self) -> bool:
        """Whether a client that asked for answers has not read all that were sent: until then nothing more is read."""
        return self.confirms and bool(self.outgoing)

    async def answers_read(self) -> None:
        """Wait until the client has read the answers that it asked for."""
        while self.is_behind and self.state is State.TAKING:
            self.state = State.ANSWERING
            self._waiter = self._loop.create_future()
            await self._waiter

    def owe(self) -> None:
        """Count a line whose answer `answer` will send."""
        self.confirms = True
        self.owed += 1

    def answer(self, frames: list[bytes]) -> None:
        """Send the answers to the first lines that are owed one."""
        self.owed -= len(frames)
        if not self.is_closed:
            self.outgoing.send(b"".join(frames))

    def refuse(self, answer: bytes) -> None:
        """Send an error. A client that does not read its answers misses it."""
        if not self.is_closed:
            self.outgoing.offer(answer)

    def stop(self) -> None:
        """Read no more, and end every wait."""
        if not self.confirms:
            self.close()
        elif self.state is not State.CLOSED:
            if self.state is State.LISTENING:
                self._loop.remove_reader(self._fd)
            self.state = State.STOPPED
            self.wake()

    def end(self) -> None:
        """Close the connection, whose lines are taken, once the client has read the answers that it is owed."""
        if self.confirms and (self.owed or self.outgoing) and not self.is_closed:
            self.state = State.ENDING
        else:
            self.close()

    def close(self) -> None:
        """Close the socket. Lines that were read stay in `lines`, for the task to take."""
        if self.state is State.CLOSED:
            return
        if self.state is State.LISTENING:
            self._loop.remove_reader(self._fd)
        self.outgoing.close()
        self.state = State.CLOSED
        self._sock.close()
        self.wake()
        self._closed(self)

    def _all_sent(self) -> None:
        if self.state is State.ANSWERING:
            self.state = State.TAKING
            self.wake()
        elif self.state is State.ENDING and not self.owed:
            self.close()


def attested(sock: socket.socket) -> Sender:
    """Return the process at the other end, as the kernel reports it."""
    size = _CREDENTIALS.size
    return Sender(*_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))
