"""One blocking delivery on a connection of its own, with or without the receiver's answer."""

from __future__ import annotations

import errno
import os
import time

from podledger.client.connection import MAX_OPERATIONS, ReceiverConnection
from podledger.client.frames import Answer, Recorded, Refused
from podledger.client.held import check_offer
from podledger.client.sockets import TIMEOUT_S


def deliver(socket_path: str | os.PathLike[str], line: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
    """Connect, read up to and including the server's snapshot, send one line, and close.

    Each socket operation may take `timeout_s` seconds, and the whole delivery `MAX_OPERATIONS` times that.

    Raises:
        OSError: the line was not sent. It is a `TimeoutError` if this took too long, and a `ConnectionError` if the
            server closed before its snapshot or sent something that is not a frame.
    """
    deadline = time.monotonic() + MAX_OPERATIONS * timeout_s
    with ReceiverConnection(socket_path, timeout_s=timeout_s, deadline=deadline) as connection:
        connection.send(line, deadline=deadline)


def deliver_confirmed(
    socket_path: str | os.PathLike[str], line: bytes, stamp_id: str, *, timeout_s: float = TIMEOUT_S
) -> Recorded:
    """Deliver a line whose stamp asks for an answer; return that answer, which comes after the commit.

    The answer may take `timeout_s` seconds.

    Raises:
        OSError: the receiver does not offer acknowledgements, refused the event, or did not answer in time. In the last
            case the event may be recorded all the same.
    """
    deadline = time.monotonic() + MAX_OPERATIONS * timeout_s
    with ReceiverConnection(socket_path, timeout_s=timeout_s, deadline=deadline) as connection:
        check_offer(connection)
        connection.send(line, deadline=deadline)
        [answer] = connection.answers([stamp_id], within_s=timeout_s)
        return recorded_in(answer, connection.path)


def recorded_in(answer: Answer, path: str) -> Recorded:
    """Return the answer to a recorded event.

    Raises:
        OSError: the event was refused. The error's number is `EBADMSG`.
    """
    if isinstance(answer, Refused):
        raise OSError(errno.EBADMSG, f"the receiver refused the event: {answer.message}", path)
    return answer
