"""One blocking connection to a receiver: connect, read its snapshot, send lines, read its answers.

This module imports little of the standard library, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from podledger.client import frames
from podledger.client.frames import Answer, Frames
from podledger.client.sockets import TIMEOUT_S, connect, socket_errors

MAX_OPERATIONS: Final = 12
"""Connecting may take this many times the limit of one operation, and so may sending: no slow server blocks them."""

MAX_ANSWERS: Final = 100_000
"""The most answers that may wait to be taken."""

_RECV_BYTES: Final = 1 << 18
_SEND_BYTES: Final = 1 << 16


class ReceiverConnection:
    """A connection on which the snapshot was read: a context manager, for one thread at a time.

    Each socket operation may take `timeout_s` seconds, and connecting `MAX_OPERATIONS` times that, or until `deadline`
    on the monotonic clock.

    Raises:
        OSError: the receiver cannot be reached. The error names the socket. It is a `TimeoutError` if this took too
            long, and a `ConnectionError` if the server closed before its snapshot or sent no valid frame.
    """

    def __init__(
        self, socket_path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S, deadline: float | None = None
    ) -> None:
        self.path = os.fspath(socket_path)
        self._timeout_s = timeout_s
        self._frames = Frames()
        self._answers: deque[Answer] = deque()
        self._offer: frozenset[str] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with socket_errors(self.path, timeout_s):
                connect(self._socket, self.path, timeout_s)
                self._snapshot = self._read_snapshot(self._limit(deadline))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def accepts(self) -> frozenset[str]:
        """The offer of the greeting to podledger's senders: `ack`, `relay`, or nothing."""
        if self._offer is None:
            self._offer = frames.offer_of(self._snapshot)
            self._snapshot.clear()
        return self._offer

    def send(self, lines: bytes, *, deadline: float | None = None) -> None:
        """Send whole lines without waiting for answers, which are kept for `answers`.

        It may take `MAX_OPERATIONS` times the limit of one operation, or until `deadline`.

        Raises:
            OSError: not everything was sent. Answers that have arrived can still be read.
        """
        by = self._limit(deadline)
        with socket_errors(self.path, self._timeout_s):
            rest = memoryview(lines)
            while rest:
                try:
                    rest = rest[self._socket.send(rest[:_SEND_BYTES], socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    self._wait_to_send(by)

    def answers(self, ids: Iterable[str], *, within_s: float) -> Iterator[Answer]:
        """Yield the answers to events that were sent, as they arrive, until each has one.

        `ids` are those of the stamps, in the order of the lines. A receiver answers in that order, so a refusal without
        an id belongs to the first event that has no answer yet. Other frames are skipped.

        Raises:
            OSError: an answer is missing: a `TimeoutError` after `within_s` seconds, a `ConnectionError` if the
                receiver has closed the connection. The answers before were yielded.
        """
        waiting = dict.fromkeys(ids)
        deadline = time.monotonic() + within_s
        while waiting:
            answer = self._next_answer(deadline, within_s)
            about = answer.id or next(iter(waiting))
            if about in waiting:
                del waiting[about]
                yield answer._replace(id=about)

    @property
    def has_ended(self) -> bool:
        """Whether the receiver has closed the connection, and nothing that it sent is unread."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def abort(self) -> None:
        """End the operation that another thread waits for."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _limit(self, deadline: float | None) -> float:
        return time.monotonic() + MAX_OPERATIONS * self._timeout_s if deadline is None else deadline

    def _read_snapshot(self, deadline: float) -> bytearray:
        """Read the server's frames up to its snapshot; return it if it may hold an offer, otherwise nothing."""
        read = 0
        while True:
            while (frame := self._frames.next()) is not None:
                if frames.event_of(frame) == b"snapshot":
                    return frame if frames.may_offer(frame) else bytearray()
            chunk = self._socket.recv(_RECV_BYTES)
            if not chunk:
                raise ConnectionError("the server closed before its snapshot")
            read += len(chunk)
            if read > frames.MAX_GREETING_BYTES:
                raise OSError(errno.EMSGSIZE, f"the server sent no snapshot within {frames.MAX_GREETING_BYTES:,} bytes")
            _check_time(deadline)
            self._frames.feed(chunk)

    def _wait_to_send(self, deadline: float) -> None:
        """Wait until more can be sent; read meanwhile, because a receiver reads no more until its answers are read."""
        ready = self._poll(select.POLLIN | select.POLLOUT, self._timeout_s)
        if not ready:
            raise TimeoutError(f"no progress for {self._timeout_s:g} s")
        if ready & select.POLLIN:
            self._receive()
        _check_time(deadline)

    def _next_answer(self, deadline: float, within_s: float) -> Answer:
        with socket_errors(self.path, within_s):
            while not self._answers:
                if not self._poll(select.POLLIN, deadline - time.monotonic()):
                    raise TimeoutError(f"no answer within {within_s:g} s")
                self._receive()
                if not self._answers and time.monotonic() > deadline:
                    raise TimeoutError(f"no answer within {within_s:g} s")
            return self._answers.popleft()

    def _poll(self, events: int, wait_s: float) -> int:
        poll = select.poll()
        poll.register(self._socket, events)
        return next((ready for _, ready in poll.poll(max(0.0, wait_s) * 1000)), 0)

    def _receive(self) -> None:
        """Take in what has arrived, and keep the answers in it."""
        try:
            chunk = self._socket.recv(_RECV_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if not chunk:
            raise ConnectionError("the server closed the connection")
        self._frames.feed(chunk)
        while (frame := self._frames.next()) is not None:
            if (answer := frames.answer_of(frame)) is not None:
                self._answers.append(answer)
        if len(self._answers) > MAX_ANSWERS:
            raise OSError(errno.EMSGSIZE, f"the server sent more than {MAX_ANSWERS:,} answers that nobody asked for")


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the whole delivery took too long")
