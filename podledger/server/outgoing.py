"""The frames sent on one connection: kept until the client reads them, without delaying other clients."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

_NOTHING = memoryview(b"")


class Outgoing:
    """The frames that a client has not read yet; its length is in bytes.

    `all_sent` is called each time that the client has read everything that was sent whole. `progress_at` is when it
    last read something, on the monotonic clock, as long as anything is unsent.
    """

    __slots__ = ("_all_sent", "_fd", "_loop", "_sock", "_unsent", "_watching", "progress_at")

    def __init__(self, sock: socket.socket, all_sent: Callable[[], None]) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._all_sent = all_sent
        self._loop = asyncio.get_running_loop()
        self._unsent = _NOTHING
        self._watching = False
        self.progress_at = 0.0

    def __len__(self) -> int:
        return len(self._unsent)

    def offer(self, frame: bytes) -> None:
        """Send a frame, unless the client is behind with reading: then it misses this one."""
        if self._unsent:
            return
        self._unsent = memoryview(frame)
        self._flush()
        if len(self._unsent) == len(frame):
            self._unsent = _NOTHING
        self._watch()

    def send(self, frame: bytes) -> None:
        """Send a frame whole, as fast as the client reads."""
        if not self._unsent:
            self.progress_at = time.monotonic()
        self._unsent = memoryview(bytes(self._unsent) + frame if self._unsent else frame)
        self._continue()

    def close(self) -> None:
        """Send nothing more."""
        self._unsent = _NOTHING
        if self._watching:
            self._watch()

    def _continue(self) -> None:
        self._flush()
        self._watch()
        if not self._unsent:
            self._all_sent()

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # the client has closed the connection
            self._unsent = _NOTHING
        self.progress_at = time.monotonic()

    def _watch(self) -> None:
        """Have `_continue` called when the client has read some, as long as something is unsent."""
        if bool(self._unsent) == self._watching:
            return
        self._watching = not self._watching
        if self._watching:
            self._loop.add_writer(self._fd, self._continue)
        else:
            self._loop.remove_writer(self._fd)
