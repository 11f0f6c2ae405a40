"""The background sender of a spool: a thread that sends what waits in a stream, with back-off, while the process lives.

It never keeps a program from ending: unacknowledged reports then stay in the spool.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

from podledger.client import background
from podledger.client.delivery import recorded_in
from podledger.client.frames import Answer, Recorded
from podledger.client.held import HeldConnection
from podledger.client.lines import line_of
from podledger.client.spool import SpoolStream
from podledger.client.spooled import put, send_oldest, stream_for
from podledger.core.stamps import Stamper, process_stamper
from podledger.core.text import escape

if TYPE_CHECKING:
    from podledger.core.events import Event

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 5.0
"""How long to wait before the next attempt: first, and at most. The wait doubles in between."""

logger = logging.getLogger("podledger.sender")


class SpoolSender:
    """Sends one stream to one socket, in a thread that ends when nothing waits any more."""

    def __init__(self, stream: SpoolStream, socket: str) -> None:
        self._stream = stream
        self.socket = socket
        self._settled: set[str] = set()
        self._state = threading.Condition()
        self._wanted = False
        self._running = False
        self._failures = 0
        self._waiting: dict[str, Future[Recorded]] = {}

    def wake(self) -> None:
        """Have everything sent that waits in the stream by now."""
        with self._state:
            self._wanted = True
            if self._running:
                return
            self._running = True
        if background.exiting():  # no thread can start, so there is one attempt
            self._attempt()
            self._running = False
            return
        try:
            threading.Thread(target=self._run, name="podledger-spool", daemon=True).start()
        except RuntimeError:
            self._running = False

    def recorded(self, stamp_id: str) -> Future[Recorded]:
        """Return the answer to a report, which arrives later; `forget` ends the wait."""
        with self._state:
            return self._waiting.setdefault(stamp_id, Future())

    def forget(self, stamp_id: str) -> None:
        """Wait no more for the answer to a report."""
        with self._state:
            self._waiting.pop(stamp_id, None)

    def settle(self, within_s: float) -> None:
        """Wait until nothing waits in the stream, or the last attempt has failed."""
        with self._state:
            self._state.wait_for(lambda: not self._running or self._failures, within_s)

    def _run(self) -> None:
        while self._is_wanted():
            failure = self._attempt()
            with self._state:
                self._failures = self._failures + 1 if failure else 0
                self._wanted |= failure is not None
                self._state.notify_all()
            if failure is not None:
                if self._failures == 1 and not isinstance(failure, BlockingIOError):
                    self._warn(failure)
                time.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 60)))

    def _is_wanted(self) -> bool:
        with self._state:
            wanted, self._wanted = self._wanted, False
            self._running = wanted
            self._state.notify_all()
            return wanted

    def _attempt(self) -> Exception | None:
        """Send what waits; return why some of it still does, or None."""
        connection = HeldConnection(self.socket)
        try:
            while send_oldest(self._stream, connection, self._settled, self._answered):
                pass
        except Exception as error:  # noqa: BLE001 - after any failure, the reports wait for the next attempt
            return error
        finally:
            connection.close()
        return None

    def _answered(self, answer: Answer) -> None:
        with self._state:
            waiting = self._waiting.pop(answer.id, None)
        if waiting is None or not waiting.set_running_or_notify_cancel():
            return
        try:
            waiting.set_result(recorded_in(answer, self.socket))
        except OSError as error:
            waiting.set_exception(error)

    def _warn(self, failure: Exception) -> None:
        text = "reports to %s wait in the spool %s, and are sent again: %s"
        logger.warning(text, escape(self.socket), escape(self._stream.path), escape(str(failure), 300))


def send(
    spool: str, socket: str, event: Event, stamper: Stamper | None, *, confirm_s: float | None
) -> Coroutine[Any, Any, Recorded | None]:
    """Append an event to a spool and have it sent; the result waits `confirm_s` seconds for its answer, if given.

    Raises:
        OSError: it was not appended.
    """
    stamper = stamper or process_stamper()
    fields, subject = _unstamped(event, stamper)
    stream = stream_for(spool, fields, stamper)
    sender = _sender_of(stream, socket)
    if confirm_s is None:
        put(stream, fields, stamper, subject)
        sender.wake()
        return _nothing()
    answers: list[Future[Recorded]] = []
    put(stream, fields, stamper, subject, announce=lambda stamp_id: answers.append(sender.recorded(stamp_id)))
    sender.wake()
    return _confirmed(sender, fields["stamp"]["id"], answers[0], confirm_s)


def fire(spool: str, socket: str, event: Event) -> None:
    """Append an event to a spool and have it sent; if it cannot be appended, warn once and send it without the spool.

    Raises:
        OSError: it was not appended, and too many events are queued already.
    """
    stamper = process_stamper()
    fields, subject = _unstamped(event, stamper)
    stream = stream_for(spool, fields, stamper)
    try:
        put(stream, fields, stamper, subject)
    except OSError as error:
        if spool not in _unusable:
            _unusable.add(spool)
            text = "reports are sent without the spool, so they can be lost: %s"
            logger.warning(text, escape(str(error), 300))
        if event.stamp is None:
            fields["stamp"] = stamper.stamp(subject)
        background.enqueue(socket, line_of(fields))
        return
    _unusable.discard(spool)
    _sender_of(stream, socket).wake()


def _unstamped(event: Event, stamper: Stamper) -> tuple[dict[str, Any], str | None]:
    """Return an event as its JSON object, and its subject if it has no stamp yet."""
    subject = stamper.subject(event.kind, event.about) if event.stamp is None else None
    return event.model_dump(mode="json", exclude_none=True), subject


async def _nothing() -> None:
    """Wait for nothing."""


async def _confirmed(sender: SpoolSender, stamp_id: str, answer: Future[Recorded], within_s: float) -> Recorded:
    import asyncio

    try:
        async with asyncio.timeout(within_s):
            return await asyncio.wrap_future(answer)
    except TimeoutError as error:
        text = f"not acknowledged within {within_s:g} s; the spool keeps the report, which is sent again"
        raise TimeoutError(errno.ETIMEDOUT, text, sender.socket) from error
    finally:
        sender.forget(stamp_id)


def _sender_of(stream: SpoolStream, socket: str) -> SpoolSender:
    """Return this process's sender of a stream to a socket."""
    with _guard:
        key = (stream.path, socket)
        if key not in _senders:
            _senders[key] = SpoolSender(stream, socket)
        return _senders[key]


def _settle_all() -> None:
    """At the end of the program, let the senders finish that make progress."""
    end = time.monotonic() + background.EXIT_GRACE_S
    for sender in list(_senders.values()):
        sender.settle(max(0.0, end - time.monotonic()))


def _after_fork() -> None:
    """Start empty in a forked child: its parent sends its own reports."""
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.Lock()
    _senders.clear()


_guard = threading.Lock()
_senders: dict[tuple[str, str], SpoolSender] = {}
_unusable: set[str] = set()
os.register_at_fork(after_in_child=_after_fork)
atexit.register(_settle_all)
