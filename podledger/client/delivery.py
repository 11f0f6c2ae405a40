"""One delivery, blocking: connect, read to the server's snapshot, send one frame, close.

It needs little of the standard library, so that a process that sends one event and goes starts at once.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from podledger.core.text import escape

TIMEOUT_S: Final = 5.0
"""How long each socket operation may take."""

MAX_OPERATIONS: Final = 12
"""A whole delivery may take so many times the limit of one operation: no server can hold it by dripping."""

MAX_GREETING_BYTES: Final = 256 << 20
"""How much a server may send up to the end of its snapshot."""

MAX_ADDRESS_BYTES: Final = 107
"""The longest path that a Unix socket's address can hold."""

_CHUNK: Final = 1 << 18
_PIECE: Final = 1 << 16
_EVENT: Final = re.compile(rb'\s*\{\s*"event"\s*:\s*"([a-z_]+)"\s*[,}]')


def deliver(socket_path: str | os.PathLike[str], line: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
    """Connect, read up to and including the server's snapshot, send one frame, and close.

    Each socket operation may take `timeout_s` seconds, the whole `MAX_OPERATIONS` times that.

    Raises:
        OSError: it was not sent: a `TimeoutError` if that took too long, a `ConnectionError` if the server
            closed before its snapshot or sent what is no frame.
    """
    path = os.fspath(socket_path)
    with _explained(path, timeout_s), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        _limit(link, timeout_s)
        until = time.monotonic() + MAX_OPERATIONS * timeout_s
        _connect(link, path)
        for frame in _frames(link, until):
            if _event_of(frame) == b"snapshot":
                break
        _send(link, line, until)


def reach(socket_path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> None:
    """Connect, and let go.

    Raises:
        OSError: nobody took the connection in time.
    """
    path = os.fspath(socket_path)
    with _explained(path, timeout_s), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        _limit(link, timeout_s)
        _connect(link, path)


@contextmanager
def _explained(path: str, timeout_s: float) -> Iterator[None]:
    """Every failure an OSError that names the socket."""
    try:
        yield
    except BlockingIOError as error:
        raise TimeoutError(f"{path}: nothing moved for {timeout_s:g} s") from error
    except OSError as error:
        if error.errno is None:
            raise type(error)(f"{path}: {error}") from error
        raise OSError(error.errno, error.strerror, path) from error
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), path) from error


def _limit(link: socket.socket, timeout_s: float) -> None:
    """Have the kernel end each operation.

    Python's own time limit makes the socket a non-blocking one, and when a busy server's queue is full,
    connecting such a one fails at once instead of waiting for its turn.
    """
    whole, part = divmod(max(timeout_s, 0.001), 1)
    limit = struct.pack("@ll", int(whole), int(part * 1e6))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _connect(link: socket.socket, path: str) -> None:
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path holds no null character")
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        link.connect(path)
        return
    # A longer path than an address can hold is reached by way of its folder.
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        address = f"/proc/self/fd/{descriptor}/{name}"
        if len(os.fsencode(address)) > MAX_ADDRESS_BYTES:
            raise OSError(errno.ENAMETOOLONG, f"the socket's name is too long: more than {MAX_ADDRESS_BYTES} bytes")
        link.connect(address)
    finally:
        os.close(descriptor)


def _frames(link: socket.socket, until: float) -> Iterator[bytearray]:
    """The server's frames that are not blank, as they arrive."""
    rest = bytearray()
    for chunk in _chunks(link, until):
        searched = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", searched)) >= 0:
            frame = rest[:end]
            del rest[: end + 1]
            searched = 0
            if not frame.isspace() and frame:
                yield frame


def _chunks(link: socket.socket, until: float) -> Iterator[bytes]:
    read = 0
    while chunk := link.recv(_CHUNK):
        read += len(chunk)
        if read > MAX_GREETING_BYTES:
            raise OSError(errno.EMSGSIZE, f"no snapshot ended within {MAX_GREETING_BYTES:,} bytes")
        _check_time(until)
        yield chunk
    raise ConnectionError("the server closed before its snapshot")


def _event_of(frame: bytearray) -> bytes:
    """The name of the event that a server's frame is; how it begins mostly tells, however long it is."""
    match = _EVENT.match(frame)
    if match and frame[-8:].rstrip().endswith(b"}"):
        return match[1]
    try:
        message = json.loads(frame.decode())
        return str(message["event"]).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        start = escape(bytes(frame[:60]).decode(errors="replace"))
        raise ConnectionError(f"the server sent what is no frame: {start}") from None


def _send(link: socket.socket, line: bytes, until: float) -> None:
    rest = memoryview(line)
    while rest:
        _check_time(until)
        rest = rest[link.send(rest[:_PIECE]) :]


def _check_time(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError("the delivery as a whole took too long")
