"""Accepts connections as there is room for them, and refuses those of other users."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from typing import Final

from podledger.core.entries import Sender
from podledger.server.connection import attested

AT_ONCE: Final = 64
"""How many connections to accept before other work gets a turn."""

RESERVED_FILES: Final = 128
"""How many of the process's open files to leave to the database and the rest."""

WARN_AGAIN_S: Final = 60.0
MAX_WARNED: Final = 100
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
logger = logging.getLogger("podledger.receiver")


class Acceptor:
    """Accepts on a listening socket until it is paused; `admit` is called with each connection of an allowed user.

    `make_room` returns whether there is room for one more. If there is none, the acceptor pauses, and clients wait in
    the kernel's queue until it resumes.
    """

    def __init__(
        self,
        listener: socket.socket,
        allowed_uids: frozenset[int],
        *,
        make_room: Callable[[], bool],
        admit: Callable[[socket.socket, Sender], None],
    ) -> None:
        self._listener = listener
        self._allowed = allowed_uids | {os.geteuid()}
        self._make_room = make_room
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self._accepting = False
        self._warned: dict[int | str, float] = {}

    def resume(self) -> None:
        """Accept from now on."""
        if not self._accepting:
            self._accepting = True
            self._loop.add_reader(self._listener, self.accept)

    def pause(self) -> None:
        """Accept nothing until `resume` is called."""
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener)

    def accept(self, at_once: int = AT_ONCE) -> None:
        """Accept connections that wait, at most `at_once`."""
        for _ in range(at_once):
            if not self._make_room():
                self.pause()
                return
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self.warn("shortage", f"cannot accept connections for now: {error.strerror}")
                    self.pause()
                    return
                continue
            self._check(sock)

    def _check(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sender = attested(sock)
        if sender.uid in self._allowed:
            self._admit(sock, sender)
        else:
            sock.close()
            self.warn(sender.uid, f"refused a connection of user {sender.uid} (process {sender.pid})")

    def warn(self, about: int | str, text: str) -> None:
        """Log a warning, about the same thing once a minute at most."""
        now = time.monotonic()
        if now - self._warned.get(about, -WARN_AGAIN_S) >= WARN_AGAIN_S:
            self._warned = {about: now} if len(self._warned) >= MAX_WARNED else self._warned | {about: now}
            logger.warning(text)


def files_left() -> int:
    """Return how many connections the limit on open files leaves room for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(16, soft - RESERVED_FILES)
