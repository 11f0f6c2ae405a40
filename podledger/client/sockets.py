"""A blocking Unix socket: connect within a time limit, and errors that name the socket.

This module imports little of the standard library, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

TIMEOUT_S: Final = 5.0
"""The time limit of each socket operation."""

MAX_ADDRESS_BYTES: Final = 107
"""The longest path that the address of a Unix socket can hold."""


def reach(socket_path: str | os.PathLike[str], *, timeout_s: float = TIMEOUT_S) -> None:
    """Connect and close again.

    Raises:
        OSError: no server accepted the connection in time.
    """
    path = os.fspath(socket_path)
    with socket_errors(path, timeout_s), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        connect(probe, path, timeout_s)


class socket_errors:  # noqa: N801 - used like a function; a class is faster than a generator
    """Turn every failure in a `with` block into an OSError that names the socket."""

    __slots__ = ("_path", "_timeout_s")

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case BlockingIOError():
                raise TimeoutError(f"{self._path}: no progress for {self._timeout_s:g} s") from error
            case OSError(errno=None):
                raise type(error)(f"{self._path}: {error}") from error
            case OSError():
                raise OSError(error.errno, error.strerror, self._path) from error
            case ValueError():
                raise OSError(errno.EINVAL, str(error), self._path) from error


def connect(unconnected: socket.socket, path: str, timeout_s: float) -> None:
    """Connect a socket, and have the kernel limit the time of each of its operations.

    Python's own timeout makes the socket non-blocking. Such a socket does not wait for a place in the queue of a busy
    server: connecting fails at once if that queue is full.
    """
    whole, part = divmod(max(timeout_s, 0.001), 1)
    limit = struct.pack("@ll", int(whole), int(part * 1e6))
    unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    _connect(unconnected, path)


def _connect(unconnected: socket.socket, path: str) -> None:
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path cannot hold a null character")
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        unconnected.connect(path)
        return
    # The path is too long for an address, so the address goes through a descriptor of its folder.
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        address = f"/proc/self/fd/{descriptor}/{name}"
        if len(os.fsencode(address)) > MAX_ADDRESS_BYTES:
            raise OSError(errno.ENAMETOOLONG, f"the socket's name is too long: more than {MAX_ADDRESS_BYTES} bytes")
        unconnected.connect(address)
    finally:
        os.close(descriptor)
