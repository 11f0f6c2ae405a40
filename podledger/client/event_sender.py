"""A sender that holds one connection, with many events in flight, and sends unacknowledged ones again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from podledger.client import background, held
from podledger.client.delivery import recorded_in
from podledger.client.frames import Answer, Recorded
from podledger.client.held import HeldConnection
from podledger.client.sender import asking_line
from podledger.client.sockets import TIMEOUT_S
from podledger.core.stamps import Stamper

if TYPE_CHECKING:
    from podledger.core.events import Event

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 5.0
"""How long to wait before sending again: first, and at most. The wait doubles in between."""


class _Waiting(NamedTuple):
    """An event that was not acknowledged yet."""

    line: bytes
    recorded: asyncio.Future[Recorded]


class EventSender:
    """Reports events to the pod that listens on `socket`, on one connection: an asynchronous context manager.

    Events are sent in the order of the calls, many at a time. If the connection breaks, the sender connects again with
    back-off, and sends the unacknowledged events again, in order and with the same stamps, so that the ledger
    recognizes repetitions. When you leave the context, it goes on for `close_timeout_s` seconds at most. Each socket
    operation may take `timeout_s` seconds.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str],
        *,
        timeout_s: float = TIMEOUT_S,
        close_timeout_s: float = background.EXIT_GRACE_S,
        stamper: Stamper | None = None,
    ) -> None:
        self._connection = HeldConnection(socket, timeout_s=timeout_s)
        self._close_timeout_s = close_timeout_s
        self._stamper = stamper
        self._waiting: dict[str, _Waiting] = {}
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._failures = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="podledger-held")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="podledger-sender")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._close_timeout_s):
                    await self.flush()
        finally:
            task, self._task = self._task, None
            self._connection.abort()
            self._thread.submit(self._connection.close)
            self._thread.shutdown(wait=False)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            self._fail(OSError(errno.ETIMEDOUT, "not acknowledged when the sender closed", self._connection.path))

    def send(self, event: Event) -> asyncio.Future[Recorded]:
        """Report `event`; await the result to wait until it is committed. Without `await`, the event is in flight.

        It is stamped when you call this. The result is the entry's `seq` and `outcome`. A coroutine that is cancelled
        while it waits does not take the event back.

        Raises:
            OSError: too many events are in flight. On await: the receiver refused the event or offers no
                acknowledgements, or the sender closed before it was acknowledged.
        """
        if self._task is None:
            raise OSError(errno.ESHUTDOWN, "the sender is not open", self._connection.path)
        stamp_id, line = asking_line(event, self._stamper)
        full = len(self._waiting) >= background.MAX_QUEUED or self._bytes + len(line) > background.MAX_QUEUED_BYTES
        if full:
            text = f"{len(self._waiting):,} events are not acknowledged yet"
            raise OSError(errno.ENOBUFS, text, self._connection.path)
        recorded: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self._waiting[stamp_id] = _Waiting(line, recorded)
        self._bytes += len(line)
        self._arrived.set()
        return recorded

    async def flush(self) -> None:
        """Wait until every event that was sent so far is acknowledged or refused."""
        if waiting := [each.recorded for each in self._waiting.values()]:
            await asyncio.wait(waiting)

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            exchange = asyncio.get_running_loop().run_in_executor(
                self._thread, self._connection.exchange, self._next_lines()
            )
            answers, error = await exchange
            for answer in answers:
                self._settle(answer)
            if answers:
                self._failures = 0
            if error is not None:
                await self._recover(error)
            if not self._waiting:
                self._arrived.clear()

    def _next_lines(self) -> dict[str, bytes]:
        lines: dict[str, bytes] = {}
        size = 0
        for stamp_id, waiting in self._waiting.items():
            if len(lines) == held.MAX_LINES or size > held.MAX_BYTES:
                break
            lines[stamp_id] = waiting.line
            size += len(waiting.line)
        return lines

    def _settle(self, answer: Answer) -> None:
        line, recorded = self._waiting.pop(answer.id)
        self._bytes -= len(line)
        if recorded.done():  # its caller was cancelled
            return
        try:
            recorded.set_result(recorded_in(answer, self._connection.path))
        except OSError as error:
            recorded.set_exception(error)

    async def _recover(self, error: OSError) -> None:
        """Wait before the next attempt; without an offer there is none."""
        if error.errno == errno.EOPNOTSUPP:
            self._fail(error)
            return
        self._failures += 1
        if self._failures == 2:  # the first failure may be a receiver that has just closed an idle connection
            background.warn(self._connection.path, error)
        await asyncio.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 60)))

    def _fail(self, error: OSError) -> None:
        for _, recorded in self._waiting.values():
            if not recorded.done():
                recorded.set_exception(OSError(error.errno, error.strerror, error.filename))
        self._waiting.clear()
        self._bytes = 0
