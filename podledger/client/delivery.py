"""One blocking delivery: connect, read up to the server's snapshot, send one line, close.

This module imports little of the standard library, so that a short-lived sender starts fast.
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
"""The time limit of each socket operation."""

MAX_OPERATIONS: Final = 12
"""A whole delivery may take this many times the limit of one operation, so that a slow server cannot block it."""

MAX_GREETING_BYTES: Final = 256 << 20
"""The most bytes that a server may send up to the end of its snapshot."""

MAX_ADDRESS_BYTES: Final = 107
"""The longest path that the address of a Unix socket can hold."""

_RECV_BYTES: Final = 1 << 18
_SEND_BYTES: Final = 1 << 16
_EVENT: Final = re.compile(rb'\s*\{\s*"event"\s*:\s*"([a-z_]+)"\s*[,}]')


def deliver(socket_path: str | os.PathLike[str], line: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
    """Connect, read up to and including the server's snapshot, send one line, and close.

    Each socket operation may take `timeout_s` seconds, and the whole delivery `MAX_OPERATIONS` times that.

    Raises:
        OSError: the line was not sent. It is a `TimeoutError` if this took too long, and a `ConnectionError` if the
            server closed before its snapshot or sent something that is not a frame.
    """
    path = os.fspath(socket_path)
    with _socket_errors(path, timeout_s), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        _limit(link, timeout_s)
        deadline = time.monotonic() + MAX_OPERATIONS * timeout_s
        _connect(link, path)
        for frame in _frames(link, deadline):
            if _event_of(frame) == b"snapshot":
                break
        _send(link, line, deadline)


def reach(socket_path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> None:
    """Connect and close again.

    Raises:
        OSError: no server accepted the connection in time.
    """
    path = os.fspath(socket_path)
    with _socket_errors(path, timeout_s), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        _limit(link, timeout_s)
        _connect(link, path)


@contextmanager
def _socket_errors(path: str, timeout_s: float) -> Iterator[None]:
    """Turn every failure into an OSError that names the socket."""
    try:
        yield
    except BlockingIOError as error:
        raise TimeoutError(f"{path}: no progress for {timeout_s:g} s") from error
    except OSError as error:
        if error.errno is None:
            raise type(error)(f"{path}: {error}") from error
        raise OSError(error.errno, error.strerror, path) from error
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), path) from error


def _limit(link: socket.socket, timeout_s: float) -> None:
    """Let the kernel limit the time of each operation.

    Python's own timeout makes the socket non-blocking. Such a socket does not wait for a place in the queue of a busy
    server: connecting fails at once if that queue is full.
    """
    whole, part = divmod(max(timeout_s, 0.001), 1)
    limit = struct.pack("@ll", int(whole), int(part * 1e6))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _connect(link: socket.socket, path: str) -> None:
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path cannot hold a null character")
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        link.connect(path)
        return
    # The path is too long for an address, so the address goes through a descriptor of its folder.
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        address = f"/proc/self/fd/{descriptor}/{name}"
        if len(os.fsencode(address)) > MAX_ADDRESS_BYTES:
            raise OSError(errno.ENAMETOOLONG, f"the socket's name is too long: more than {MAX_ADDRESS_BYTES} bytes")
        link.connect(address)
    finally:
        os.close(descriptor)


def _frames(link: socket.socket, deadline: float) -> Iterator[bytearray]:
    """Yield the server's frames as they arrive, without blank ones."""
    rest = bytearray()
    for chunk in _chunks(link, deadline):
        searched = len(rest)
        rest += chunk
        while (end := rest.find(b"\n", searched)) >= 0:
            frame = rest[:end]
            del rest[: end + 1]
            searched = 0
            if not frame.isspace() and frame:
                yield frame


def _chunks(link: socket.socket, deadline: float) -> Iterator[bytes]:
    read = 0
    while chunk := link.recv(_RECV_BYTES):
        read += len(chunk)
        if read > MAX_GREETING_BYTES:
            raise OSError(errno.EMSGSIZE, f"the server sent no snapshot within {MAX_GREETING_BYTES:,} bytes")
        _check_time(deadline)
        yield chunk
    raise ConnectionError("the server closed before its snapshot")


def _event_of(frame: bytearray) -> bytes:
    """Return the event name of a server's frame, mostly from its first bytes, without parsing a long one."""
    match = _EVENT.match(frame)
    if match and frame[-8:].rstrip().endswith(b"}"):
        return match[1]
    try:
        message = json.loads(frame.decode())
        return str(message["event"]).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        start = escape(bytes(frame[:60]).decode(errors="replace"))
        raise ConnectionError(f"the server sent something that is not a frame: {start}") from None


def _send(link: socket.socket, line: bytes, deadline: float) -> None:
    rest = memoryview(line)
    while rest:
        _check_time(deadline)
        rest = rest[link.send(rest[:_SEND_BYTES]) :]


def _check_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("the whole delivery took too long")
