"""From sockets to the committer: each connection is read a little at a time, and none takes more than its share.

A connection that has more to give than one turn takes waits in a line with the others. While too much waits for its
commit nothing is read, so a flood waits at its own end of the socket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from podledger.core.entries import draft
from podledger.core.errors import ProtocolError
from podledger.core.protocol import Report, Request, parse_line
from podledger.server.connection import CHUNK_BYTES, ClientConnection
from podledger.server.framing import Frame
from podledger.server.ingest_queue import IngestQueue
from podledger.server.limits import Limits
from podledger.store.log import Rejection

TURN_LINES: Final = 16
TURNS_S: Final = 0.02
"""How many lines one turn takes, and for how long turns are given before new arrivals are looked at."""

STALLED_S: Final = 0.5
LONG_LINE_S: Final = 5.0
"""How long a long line may take to arrive while others wait to begin theirs: stalled, and at all."""

logger = logging.getLogger("podledger.receiver")


class Reader:
    """Reads connections for the ledger `owner`.

    `refuse` is called with a connection and the reason why its line is not taken, `ask` with one that asks for the
    registry and is read on when `resume` is called, `end` with one of which everything is taken.
    """

    def __init__(
        self,
        owner: str,
        committer: IngestQueue,
        limits: Limits,
        *,
        refuse: Callable[[ClientConnection, str], None],
        ask: Callable[[ClientConnection], None],
        end: Callable[[ClientConnection], None],
    ) -> None:
        self._owner = owner
        self._committer = committer
        self._limits = limits
        self._refuse = refuse
        self._ask = ask
        self._finish = end
        self._loop = asyncio.get_running_loop()
        self._turns: deque[ClientConnection] = deque()
        self._turns_due = False
        self._long: set[ClientConnection] = set()
        self._unbounded = False

    def start(self, connection: ClientConnection) -> None:
        """Read a connection whenever something arrives on it."""
        if not connection.listening:
            connection.listening = True
            self._loop.add_reader(connection.fd, self.read, connection)

    def read(self, connection: ClientConnection) -> None:
        """Read what has arrived on a connection, if there is room for it, and take a turn's worth of it."""
        if not self._has_room(connection):
            self._wait(connection)
            return
        connection.receive()
        if connection.long_since is None:
            self._take_turn(connection)
        else:
            self._wait(connection)  # what takes long to parse is taken in turns, beside which short reports pass

    def stop(self, connection: ClientConnection) -> None:
        """Read no more from a connection that is about to be closed; what was read is still taken, in its turn."""
        self._unlisten(connection)
        self._end_long(connection)
        connection.ended = True
        connection.asked_at = None
        if connection.lines:
            self._wait(connection)

    def resume(self, connection: ClientConnection) -> None:
        """Read a connection on whose question is answered."""
        self._wait(connection)

    def go_on(self) -> None:
        """Give turns: there may be room again."""
        if self._turns and not self._turns_due:
            self._turns_due = True
            self._loop.call_soon(self._give_turns)

    def cut_stalled(self) -> None:
        """Give up the long lines that take too long, if others wait to begin theirs."""
        if not any(each.long_since is None and len(each.lines) > CHUNK_BYTES for each in self._turns):
            return
        for connection in [each for each in self._long if each.listening and self._has_room(each)]:
            age_s = time.monotonic() - (connection.long_since or 0.0)
            if age_s > LONG_LINE_S or (age_s > STALLED_S and not self._has_news(connection)):
                self.cut(connection, f"not finished within {age_s:.1f} s, while others waited to send")

    def cut(self, connection: ClientConnection, fault: str) -> None:
        """Give up what was read of a connection and not taken yet, if anything; it is kept as one rejected line."""
        if connection.lines:
            self._take(connection, connection.lines.cut_short(fault))
        self._end_long(connection)

    def take_all(self) -> None:
        """Take every line that was read, whether there is room or not."""
        self._unbounded = True
        while self._turns:
            self._give_turns()

    def _give_turns(self) -> None:
        """One turn for each that waits, as long as there is time and room."""
        until = time.monotonic() + TURNS_S
        moved = False
        for _ in range(len(self._turns)):
            if not (self._committer.has_room or self._unbounded):
                break
            if time.monotonic() > until:
                moved = True  # or else might, next time
                break
            connection = self._turns.popleft()
            connection.waiting = False
            moved = self._take_turn(connection) or moved
        self._turns_due = False
        if moved:  # or else the next commit goes on
            self.go_on()

    def _take_turn(self, connection: ClientConnection) -> bool:
        """Take some lines, then read on, wait, or end; whether anything moved."""
        taken = 0
        while connection.asked_at is None:
            if taken == TURN_LINES or not self._has_room(connection):
                self._wait(connection)
                break
            line = connection.lines.next()
            if line is None:
                return self._read_on(connection) or taken > 0
            self._take(connection, line)
            taken += 1
        return taken > 0

    def _read_on(self, connection: ClientConnection) -> bool:
        """No whole line is left: end, read on, or wait until a long line may grow."""
        if connection.ended:
            self._end(connection)
        elif self._may_grow(connection):
            self.start(connection)
        else:
            self._wait(connection)
            return False
        return True

    def _has_news(self, connection: ClientConnection) -> bool:
        held = len(connection.lines)
        self.read(connection)
        return connection.ended or len(connection.lines) != held

    def _end(self, connection: ClientConnection) -> None:
        if line := connection.lines.last():
            self._take(connection, line)
        self._end_long(connection)
        if connection.asked_at is None:
            self._finish(connection)

    def _has_room(self, connection: ClientConnection) -> bool:
        if self._unbounded:
            return True
        return self._committer.has_room and connection.peer.queued < self._limits.queued_share

    def _may_grow(self, connection: ClientConnection) -> bool:
        """Whether what is unfinished may become longer; of long lines only so many are begun at a time."""
        if len(connection.lines) <= CHUNK_BYTES:
            self._end_long(connection)
            return True
        if connection.long_since is not None:
            return True
        peer = connection.peer
        if len(self._long) >= self._limits.max_long_lines or peer.long_lines >= self._limits.long_share:
            return False
        connection.long_since = time.monotonic()
        peer.long_lines += 1
        self._long.add(connection)
        return True

    def _end_long(self, connection: ClientConnection) -> None:
        if connection.long_since is not None:
            connection.long_since = None
            connection.peer.long_lines -= 1
            self._long.discard(connection)
            self.go_on()

    def _wait(self, connection: ClientConnection) -> None:
        self._unlisten(connection)
        if not connection.waiting:
            connection.waiting = True
            self._turns.append(connection)
            self.go_on()

    def _unlisten(self, connection: ClientConnection) -> None:
        if connection.listening:
            connection.listening = False
            self._loop.remove_reader(connection.fd)

    def _take(self, connection: ClientConnection, line: Frame) -> None:
        if not line.raw.strip(b" \t\r"):
            return
        connection.heard_at = time.monotonic()
        try:
            message = _read(line)
        except ProtocolError as error:
            self._committer.put(Rejection(line.raw, error.message, connection.sender), connection.peer)
            self._refuse(connection, error.message)
            return
        if isinstance(message, Report):
            found = draft(message.event, self._owner, payload=message.payload, sender=connection.sender)
            self._committer.put(found, connection.peer)
        elif message.method != "list_pods":
            self._refuse(connection, f"{message.method} is not served here")
        elif not connection.closed:
            self._unlisten(connection)
            self._ask(connection)


def _read(line: Frame) -> Report | Request:
    """The message that a line is.

    Raises:
        ProtocolError: it is none.
    """
    if line.fault:
        raise ProtocolError(line.fault)
    try:
        return parse_line(line.raw)
    except ProtocolError:
        raise
    except Exception as error:
        logger.exception("a line could not be read")
        raise ProtocolError(f"reading it failed: {error!r}") from error
