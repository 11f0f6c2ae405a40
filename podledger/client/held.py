"""A held connection: it stays open between exchanges, and is opened again when it is gone."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

from podledger.client.connection import ReceiverConnection
from podledger.client.frames import Answer
from podledger.client.sockets import TIMEOUT_S

ANSWER_TIMEOUT_S: Final = 60.0
"""How long an exchange waits for its answers: a receiver whose storage fails answers when it works again."""

MAX_LINES: Final = 1_000
MAX_BYTES: Final = 1 << 20
"""The most lines, and about the most bytes of them, that callers should send in one exchange."""


class Exchange(NamedTuple):
    """The answers to the events that were sent, and why some of them may have none."""

    answers: list[Answer]
    error: OSError | None = None


class HeldConnection:
    """Keeps one connection to the receiver at `path`, for any thread."""

    def __init__(self, path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> None:
        self.path = os.fspath(path)
        self._timeout_s = timeout_s
        self._connection: ReceiverConnection | None = None
        self._aborted = False
        self._lock = threading.Lock()

    def accepts(self) -> frozenset[str]:
        """Return the receiver's offer, after connecting to it if necessary.

        Raises:
            OSError: it cannot be reached.
        """
        with self._lock:
            return self._connected().accepts

    def send(self, line: bytes) -> None:
        """Send a line to a receiver that offers no acknowledgements, and close the connection, as it expects.

        Raises:
            OSError: the line was not sent.
        """
        with self._lock:
            try:
                self._connected().send(line)
            finally:
                self._drop()

    def exchange(self, lines: Mapping[str, bytes], *, within_s: float = ANSWER_TIMEOUT_S) -> Exchange:
        """Send events that ask for an answer, by the id of their stamp, and read their answers.

        After an error the connection is given up, and events without an answer can be sent again with the same stamps.
        """
        answers: list[Answer] = []
        failure: OSError | None = None
        with self._lock:
            try:
                connection = self._connected()
                check_offer(connection)
                failure = _try_send(connection, b"".join(lines.values()))
                for answer in connection.answers(lines, within_s=0 if failure else within_s):
                    answers.append(answer)  # noqa: PERF402 - each counts, also if reading the next one fails
            except OSError as error:
                self._drop()
                return Exchange(answers, failure or error)
        return Exchange(answers)

    def abort(self) -> None:
        """End the operation that another thread waits for, and connect no more. Call `close` too."""
        self._aborted = True
        if (connection := self._connection) is not None:
            connection.abort()

    def close(self) -> None:
        """Close the connection, after the operation of another thread. The next operation opens another."""
        with self._lock:
            self._drop()

    def _connected(self) -> ReceiverConnection:
        if self._aborted:
            raise OSError(errno.ESHUTDOWN, "the sender is closed", self.path)
        if self._connection is not None and self._connection.has_ended:
            self._drop()
        if self._connection is None:
            self._connection = ReceiverConnection(self.path, timeout_s=self._timeout_s)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _try_send(connection: ReceiverConnection, lines: bytes) -> OSError | None:
    """Send lines; return the failure instead, because answers that arrived before it can still be read."""
    try:
        connection.send(lines)
    except OSError as error:
        return error
    return None


def check_offer(connection: ReceiverConnection) -> None:
    """Check that the receiver offers acknowledgements.

    Raises:
        OSError: it does not. The error's number is `EOPNOTSUPP`.
    """
    if "ack" not in connection.accepts:
        raise OSError(errno.EOPNOTSUPP, "the receiver offers no acknowledgements, so nothing was sent", connection.path)
