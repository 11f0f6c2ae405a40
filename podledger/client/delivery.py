"""One blocking delivery: connect, read up to the server's snapshot, send one line, close."""

from __future__ import annotations

import os
import time

from podledger.client.connection import MAX_OPERATIONS, ReceiverConnection
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
