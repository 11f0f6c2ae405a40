"""Who is let in: connections accepted as there is room, and those of another user refused."""

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
"""How many connections are accepted before others get a turn."""

RESERVED_FILES: Final = 128
"""How many of the process's open files are left to the database and the rest."""

WARN_AGAIN_S: Final = 60.0
MAX_WARNED: Final = 100
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
logger = logging.getLogger("podledger.receiver")


class Acceptor:
    """Accepts on a listening socket while it is open; `admit` gets each connection of an allowed user.

    `make_room` is asked before each whether there is room for one more. Without, the door shuts, and those outside wait
    in the kernel's queue until it is opened again.
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
        self._open = False
        self._warned: dict[int | str, float] = {}

    def open(self) -> None:
        """Accept from now on."""
        if not self._open:
            self._open = True
            self._loop.add_reader(self._listener, self.accept)

    def shut(self) -> None:
        """Accept no more for now."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener)

    def accept(self, at_once: int = AT_ONCE) -> None:
        """Let in who waits outside, a bounded number."""
        for _ in range(at_once):
            if not self._make_room():
                self.shut()
                return
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _SHORTAGES:
                    self.warn("shortage", f"no connection can be accepted for now: {error.strerror}")
                    self.shut()
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
        """Log a warning, about each thing once in a while."""
        now = time.monotonic()
        if now - self._warned.get(about, -WARN_AGAIN_S) >= WARN_AGAIN_S:
            self._warned = {about: now} if len(self._warned) >= MAX_WARNED else self._warned | {about: now}
            logger.warning(text)


def files_left() -> int:
    """How many connections the limit on open files leaves room for."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 30 if soft == resource.RLIM_INFINITY else max(16, soft - RESERVED_FILES)
