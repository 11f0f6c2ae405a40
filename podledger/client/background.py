"""The background sender: threads that deliver events, so that their callers need not wait."""

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

MAX_QUEUED: Final = 10_000
MAX_QUEUED_BYTES: Final = 64 << 20
"""The most events, and the most bytes of them, that wait in all queues together. Further events are dropped."""

MAX_SOCKETS: Final = 256
"""The most sockets with a queue, and so a thread, at the same time."""

EXIT_GRACE_S: Final = 10.0
"""How long after the end of the program queued events are still sent. The rest is dropped, with warnings."""

POOL_THREADS: Final = 16
"""How many awaited deliveries run at the same time."""


class _BackgroundSender:
    """The background sender of one process.

    Each socket has a queue and a thread, which ends when the queue is empty. So nothing has to be closed: at exit, the
    interpreter waits for the threads that still run.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[str, deque[bytes]] = {}
        self._queued = 0
        self._queued_bytes = 0
        self._exit_by: float | None = None
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads of `deliver_async`."""
        from concurrent.futures import ThreadPoolExecutor

        with self._guard:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="podledger-send")
            return self._pool

    def enqueue(self, path: str, line: bytes) -> None:
        """Queue `line` for the socket at `path`.

        Raises:
            OSError: too many events are queued already.
        """
        if exiting():  # the interpreter does not wait for a thread that starts now
            _try_deliver(path, line)
        elif self._put(path, line):
            self._start(path)

    def _put(self, path: str, line: bytes) -> bool:
        """Add the line to its queue; return whether the queue is new and so needs a thread."""
        with self._guard:
            new = path not in self._queues
            if self._queued >= MAX_QUEUED or self._queued_bytes + len(line) > MAX_QUEUED_BYTES:
                raise OSError(errno.ENOBUFS, f"{self._queued:,} reports are already waiting to be sent")
            if new and len(self._queues) >= MAX_SOCKETS:
                raise OSError(errno.ENOBUFS, f"reports to {MAX_SOCKETS} sockets are already being sent")
            self._queues.setdefault(path, deque()).append(line)
            self._queued += 1
            self._queued_bytes += len(line)
            return new

    def _start(self, path: str) -> None:
        try:
            threading.Thread(target=self._run, args=(path,), name="podledger-fire", daemon=False).start()
        except RuntimeError as error:
            while self._next(path) is not None:
                warn(path, error)

    def _run(self, path: str) -> None:
        while (line := self._next(path)) is not None:
            if exiting() and self._grace_is_over():
                warn(path, TimeoutError("the program has ended"))
            else:
                _try_deliver(path, line)

    def _next(self, path: str) -> bytes | None:
        """Take the next line from a queue; if the queue is empty, remove it and return None."""
        with self._guard:
            queue = self._queues[path]
            if not queue:
                del self._queues[path]
                return None
            line = queue.popleft()
            self._queued -= 1
            self._queued_bytes -= len(line)
            return line

    def _grace_is_over(self) -> bool:
        with self._guard:
            if self._exit_by is None:
                self._exit_by = time.monotonic() + EXIT_GRACE_S
            return time.monotonic() > self._exit_by


def pool() -> ThreadPoolExecutor:
    """Return the threads for deliveries that are awaited."""
    return _sender.pool()


def enqueue(path: str, line: bytes) -> None:
    """Deliver `line` to the socket at `path` in the background; a failure becomes one warning.

    Raises:
        OSError: too many events are queued already.
    """
    _sender.enqueue(path, line)


def exiting() -> bool:
    """Return whether the program has ended and the interpreter is shutting down."""
    return not threading.main_thread().is_alive()


def warn(path: str, error: Exception) -> None:
    """Log that a report was not sent, as `podledger.sender`."""
    import logging

    reason = str(error) or type(error).__name__
    log = logging.getLogger("podledger.sender")
    log.warning("the report to %s was not sent: %s", escape(path), escape(reason, 300))


def _try_deliver(path: str, line: bytes) -> None:
    try:
        deliver(path, line)
    except Exception as error:  # noqa: BLE001 - no failure of one line may stop the rest of its queue
        warn(path, error)


def _after_fork() -> None:
    """Start empty in a forked child: the parent sends the queued events, and its threads may hold the lock."""
    global _sender  # noqa: PLW0603 - one background sender for one process
    _sender = _BackgroundSender()


_sender = _BackgroundSender()
os.register_at_fork(after_in_child=_after_fork)
