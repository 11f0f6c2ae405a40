"""Long lines: how many connections may be in the middle of one, and which of them take too long."""

from __future__ import annotations

import time
from typing import Final

from podledger.server.connection import ClientConnection
from podledger.server.limits import Limits

SHARE: Final = 4
"""One process may have this part of the long lines, a quarter."""

STALLED_S: Final = 0.5
LONG_LINE_S: Final = 5.0
"""How long a long line may pause, and how long it may take in all, while others wait to begin theirs."""


class LongLines:
    """The long lines: `begun` holds the connections that are in the middle of one, each with the time when it began."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_long_lines
        self._share = max(1, limits.max_long_lines // SHARE)
        self.begun: dict[ClientConnection, float] = {}

    def begin(self, connection: ClientConnection) -> bool:
        """Allow a connection's line to grow long, if there is a place for it; return whether it may."""
        if connection in self.begun:
            return True
        if len(self.begun) >= self._most or connection.peer.long_lines >= self._share:
            return False
        self.begun[connection] = time.monotonic()
        connection.peer.long_lines += 1
        return True

    def end(self, connection: ClientConnection) -> bool:
        """Give a connection's place back; return whether it had one."""
        if self.begun.pop(connection, None) is None:
            return False
        connection.peer.long_lines -= 1
        return True

    def overdue(self) -> list[tuple[ClientConnection, float]]:
        """Return the connections whose clients pause or take too long, each with the age of its line in seconds."""
        now = time.monotonic()
        return [
            (connection, now - since)
            for connection, since in self.begun.items()
            if connection.is_listening
            and (now - since > LONG_LINE_S or now - max(since, connection.received_at) > STALLED_S)
        ]
