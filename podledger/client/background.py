"""The threads that deliver, for those who do not wait for it themselves."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from podledger.client.delivery import deliver
from podledger.core.text import escape

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 64 << 20
"""How many fired events, and of what length in all, may wait for their delivery; those beyond are dropped."""

MAX_LANES: Final = 256
"""To how many sockets fired events may be under way at once, each on a thread."""

EXIT_GRACE_S: Final = 10.0
"""For how long after the end of the program fired events are still taken up for delivery."""

THREADS: Final = 16
"""How many of the deliveries that are awaited run at once."""


class _BackgroundSender:
    """The threads that deliver, of one process.

    Fired events wait in a lane for each socket, whose thread lives as long as there are any. So none needs
    stopping: the end of the program waits for the lanes as for any thread.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._lanes: dict[str, deque[bytes]] = {}
        self._waiting = 0
        self._waiting_bytes = 0
        self._exit_by: float | None = None
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        """The threads of `deliver_async`."""
        from concurrent.futures import ThreadPoolExecutor

        with self._guard:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="podledger-send")
            return self._pool

    def post(self, path: str, line: bytes) -> None:
        """Have `line` delivered to `path`.

        Raises:
            OSError: too many wait already.
        """
        if exiting():  # nobody waits for a thread that starts now
            _attempt(path, line)
        elif self._enqueue(path, line):
            self._start(path)

    def _enqueue(self, path: str, line: bytes) -> bool:
        """Put the line into its lane; whether the lane is a new one."""
        with self._guard:
            new = path not in self._lanes
            if self._waiting >= MAX_WAITING or self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
                raise OSError(errno.ENOBUFS, f"{self._waiting:,} reports wait to be sent already")
            if new and len(self._lanes) >= MAX_LANES:
                raise OSError(errno.ENOBUFS, f"reports to {MAX_LANES} sockets are under way already")
            self._lanes.setdefault(path, deque()).append(line)
            self._waiting += 1
            self._waiting_bytes += len(line)
            return new

    def _start(self, path: str) -> None:
        try:
            threading.Thread(target=self._run, args=(path,), name="podledger-fire", daemon=False).start()
        except RuntimeError as error:
            while self._next(path) is not None:
                warn(path, error)

    def _run(self, path: str) -> None:
        while (line := self._next(path)) is not None:
            if exiting() and self._too_late():
                warn(path, TimeoutError("the program has ended"))
            else:
                _attempt(path, line)

    def _next(self, path: str) -> bytes | None:
        """The lane's next line; None, and the lane is gone, if there is none."""
        with self._guard:
            lane = self._lanes[path]
            if not lane:
                del self._lanes[path]
                return None
            line = lane.popleft()
            self._waiting -= 1
            self._waiting_bytes -= len(line)
            return line

    def _too_late(self) -> bool:
        with self._guard:
            if self._exit_by is None:
                self._exit_by = time.monotonic() + EXIT_GRACE_S
            return time.monotonic() > self._exit_by


def pool() -> ThreadPoolExecutor:
    """The threads for deliveries that are awaited."""
    return _couriers.pool()


def post(path: str, line: bytes) -> None:
    """Have `line` delivered to the socket at `path` in the background; a failure is one warning.

    Raises:
        OSError: too many wait already.
    """
    _couriers.post(path, line)


def exiting() -> bool:
    """Whether the program has ended and the interpreter is about to."""
    return not threading.main_thread().is_alive()


def warn(path: str, error: Exception) -> None:
    """Log that a report was not sent, as `podledger.sender`."""
    import logging

    reason = str(error) or type(error).__name__
    log = logging.getLogger("podledger.sender")
    log.warning("the report to %s was not sent: %s", escape(path), escape(reason, 300))


def _attempt(path: str, line: bytes) -> None:
    try:
        deliver(path, line)
    except Exception as error:  # noqa: BLE001 - the lane goes on with the next, whatever befell this one
        warn(path, error)


def _after_fork() -> None:
    """In a forked child: what waits is the parent's to send, and a lock may be held by a thread not here."""
    global _couriers  # noqa: PLW0603 - as there is one process, there is one set of background
    _couriers = _BackgroundSender()


_couriers = _BackgroundSender()
os.register_at_fork(after_in_child=_after_fork)
