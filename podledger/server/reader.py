"""Reads connections: each a little at a time, so that none takes more than its share.

A connection with more lines than one turn takes waits in line with the others. While too many lines wait for
their commit, nothing is read, so that further lines wait in the sending processes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, cast

from podledger.core.entries import draft
from podledger.core.errors import ProtocolError
from podledger.core.protocol import Request, asking_id, error_frame, parse_line
from podledger.server.connection import CHUNK_BYTES, LONG_CHUNK_BYTES, ClientConnection
from podledger.server.framing import BLANK, Frame
from podledger.server.ingest_queue import IngestQueue
from podledger.server.limits import Limits
from podledger.server.long_lines import LongLines
from podledger.server.responses import Responses
from podledger.store.log import Rejection

TURN_LINES: Final = 16
"""How many lines one turn takes."""

ROUND_TURNS: Final = 64
ROUND_BYTES: Final = 256 << 10
"""How many turns are given at once, and of how many bytes. Between two rounds the event loop lets the database's thread
run; one turn a round would wait for it far more often."""

logger = logging.getLogger("podledger.receiver")


class _Turn(NamedTuple):
    """A connection that waits until `may` returns true of it."""

    connection: ClientConnection
    may: Callable[[ClientConnection], bool]
    given: asyncio.Future[None]


class Reader:
    """Reads connections for the ledger `owner`, and puts their lines into the queue."""

    def __init__(self, owner: str, queue: IngestQueue, responses: Responses, limits: Limits) -> None:
        self._owner = owner
        self._queue = queue
        self._responses = responses
        self._loop = asyncio.get_running_loop()
        self._turns: deque[_Turn] = deque()
        self._round_is_due = False
        self._long = LongLines(limits)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, connection: ClientConnection) -> None:
        """Serve a connection: without a task as long as it never has to wait, because most never do."""
        connection.expect(partial(self._arrived, connection))

    def _arrived(self, connection: ClientConnection) -> None:
        """Take what has arrived; if that has to wait, leave the connection to a task.

        A task for each connection would take a fifth of the time of a report.
        """
        try:
            done, request = self._take_at_once(connection)
        except Exception:
            logger.exception("serving a connection failed")
            connection.close()
            return
        if not done:
            connection.take()
            self._tasks.add(self._loop.create_task(self._serve(connection, request)))

    def _take_at_once(self, connection: ClientConnection) -> tuple[bool, Request | None]:
        """Take the lines that have arrived; return whether that was all for now, and the request that ended it."""
        if self._turns or not (connection.is_listening and self._queue.has_room_for(connection)):
            return False, None
        if connection.is_behind:
            return False, None
        goes_on = connection.receive()
        request = self._take_first(connection)
        if request is not None or connection.lines.holds_message:
            return False, request
        if goes_on and not connection.has_ended:  # most clients send one line and leave
            return len(connection.lines) <= CHUNK_BYTES, None
        if connection.lines:
            return False, None
        connection.take()
        connection.end()
        return True, None

    def _take_first(self, connection: ClientConnection) -> Request | None:
        """Take the whole lines of one turn, up to a request, which is returned."""
        for _ in range(TURN_LINES):
            frame = connection.lines.next() if self._queue.has_room_for(connection) else None
            if frame is None:
                return None
            if (request := self._take(connection, frame)) is not None:
                return request
        return None

    async def finish(self) -> None:
        """Take every line that was read, whether there is room or not; the connections must read no more."""
        self._queue.lift_limits()
        self._give_turns()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self, connection: ClientConnection, fault: str) -> None:
        """Reject the bytes of a connection that were read and not taken yet, as one line."""
        if connection.lines:
            self._reject(connection, connection.lines.cut_short(fault), fault)
        self._end_long(connection)

    def cut_stalled(self) -> None:
        """Cut the long lines that take too long, if others wait to begin theirs."""
        if any(turn.may == self._may_grow for turn in self._turns):
            for connection, age_s in self._long.overdue():
                self.cut(connection, f"not finished within {age_s:.1f} s, while others waited to send")

    async def _serve(self, connection: ClientConnection, request: Request | None) -> None:
        """Answer the client's first request, if any, read the connection to its end, take every line, and end it."""
        try:
            await self._answer(connection, request)
            await self._take_lines(connection)
            if len(connection.lines) > CHUNK_BYTES:
                await self._let_grow(connection)
            await self._read(connection)
            await self._take_lines(connection)
            if frame := connection.lines.last():
                await self._answer(connection, self._take(connection, frame))
            connection.end()
        except Exception:
            logger.exception("serving a connection failed")
            connection.close()
        finally:
            self._end_long(connection)
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _read(self, connection: ClientConnection) -> None:
        """Take lines from a connection as they arrive, when there is room, until nothing more will arrive."""
        while await connection.listen():
            await connection.answers_read()
            is_long = connection in self._long.begun
            if is_long or not self._queue.has_room_for(connection):  # a long line lets short reports pass
                await self._turn(connection, self._queue.has_room_for)
            if not connection.receive(LONG_CHUNK_BYTES if is_long else CHUNK_BYTES):
                return
            await self._take_lines(connection)
            if is_long or len(connection.lines) > CHUNK_BYTES:
                await self._let_grow(connection)
            if connection.has_ended:  # most clients send one line and leave
                return

    async def _take_lines(self, connection: ClientConnection) -> None:
        """Take every whole line, a turn's worth at a time."""
        taken = 0
        while (frame := connection.lines.next()) is not None:
            if taken == TURN_LINES or not self._queue.has_room_for(connection):
                await self._turn(connection, self._queue.has_room_for)
                taken = 0
            await self._answer(connection, self._take(connection, frame))
            taken += 1

    def _take(self, connection: ClientConnection, frame: Frame) -> Request | None:
        """Put a line into the queue; return a request, which is to be answered."""
        if not frame.raw.strip(BLANK):
            return None
        connection.heard_at = time.monotonic()
        if frame.fault:
            self._reject(connection, frame, frame.fault)
            return None
        try:
            message = parse_line(frame.raw)
        except ProtocolError as error:
            self._reject(connection, frame, error.message)
        except Exception as error:
            logger.exception("a line could not be read")
            self._reject(connection, frame, f"reading it failed: {error!r}")
        else:
            if isinstance(message, Request):
                return message
            connection.reported_at = connection.heard_at
            sender, origin, stamp = connection.sender, connection.origin, message.event.stamp
            event = draft(message.event, self._owner, payload=message.payload, sender=sender, origin=origin)
            self._queue.put(event, connection, answer_to=stamp.id if stamp is not None and stamp.ack else None)
        return None

    async def _answer(self, connection: ClientConnection, request: Request | None) -> None:
        """Answer a request, unless the client has left; return once it has read the answer."""
        if request is None or connection.has_left:
            return
        if request.method == "list_pods":
            await self._responses.list_pods(connection)
        else:
            connection.refuse(error_frame(f"{request.method} is not served here"))

    def _reject(self, connection: ClientConnection, frame: Frame, reason: str) -> None:
        """Keep a line that is no event, and answer it: at once, or in its turn if the client waits for answers."""
        answer_to = asking_id(frame.raw)
        if answer_to is None and not connection.confirms:
            connection.refuse(error_frame(reason))
        elif answer_to is None:
            answer_to = ""
        self._queue.put(Rejection(frame.raw, reason, connection.sender), connection, answer_to=answer_to)

    async def _let_grow(self, connection: ClientConnection) -> None:
        """Wait until the unfinished line may become longer. Only so many long lines begin at a time."""
        if len(connection.lines) <= CHUNK_BYTES:
            self._end_long(connection)
        elif not self._may_grow(connection):
            await self._turn(connection, self._may_grow)

    def _may_grow(self, connection: ClientConnection) -> bool:
        return not connection.reads or self._long.begin(connection)

    def _end_long(self, connection: ClientConnection) -> None:
        if self._long.end(connection):
            self._give_turns()

    async def _turn(self, connection: ClientConnection, may: Callable[[ClientConnection], bool]) -> None:
        """Wait in line, behind the connections that wait already, until `may` returns true."""
        turn = _Turn(connection, may, self._loop.create_future())
        self._turns.append(turn)
        self._give_turns()
        await turn.given

    def _give_turns(self, _committed: object = None) -> None:
        """Give the next turns in the event loop's next round, so that new arrivals are looked at in between."""
        if self._turns and not self._round_is_due:
            self._round_is_due = True
            self._loop.call_soon(self._give_round)

    def _give_round(self) -> None:
        """Give the first connections that may go on their turns; if there are none, try again after the next commit."""
        self._round_is_due = False
        given = size = 0
        for _ in range(len(self._turns)):
            turn = self._turns.popleft()
            if turn.given.done():  # its task was cancelled
                continue
            if not turn.may(turn.connection):
                self._turns.append(turn)
                continue
            turn.given.set_result(None)
            given += 1
            size += len(turn.connection.lines)
            if given == ROUND_TURNS or size >= ROUND_BYTES:
                break
        if given:
            self._give_turns()
        elif self._turns:
            self._queue.progress().add_done_callback(self._give_turns)
