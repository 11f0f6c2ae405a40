"""The receiver: a pod's socket, from which every report goes into the ledger and nothing is dropped in silence.

It drives the sockets itself, without the event loop's transports: a transport that fails to write an answer gives up
what it has not read yet, and a client that reports and goes reads no answers. Each connection is read a little at a
time; one that has more waits for its next turn in a line with the others. No process may take up more than its share of
what waits for commit, so a flood waits at its own end of the socket.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self

from podledger import protocol
from podledger.committer import Committer, Recorder
from podledger.connection import CHUNK_BYTES, Connection, Peer
from podledger.door import Door, files_left
from podledger.errors import PodledgerError, ProtocolError
from podledger.events import Sender, draft
from podledger.framing import Line
from podledger.limits import Limits
from podledger.log import Rejection
from podledger.names import shown
from podledger.protocol import Report, Request, parse_line
from podledger.socketfile import SocketFile

__all__ = ["Limits", "Receiver"]

TURN_LINES: Final = 16
TURNS_S: Final = 0.02
"""How many lines one turn takes, and for how long turns are given before new arrivals are looked at."""

SWEEP_S: Final = 0.5
SILENT_S: Final = 1.0
"""How long a connection must have sent no whole line before it may be closed to make room for another."""

HOG_LINES: Final = 100
LONG_LINE_S: Final = 0.5
"""How long a long line may take while others wait to begin theirs."""

logger = logging.getLogger(__name__)


class Listed(Protocol):
    """What a pod of the registry is to the receiver."""

    def as_json(self) -> dict[str, Any]:
        """The pod as `pods --json` prints it."""


class ReceivingLedger(Recorder, Protocol):
    """What a ledger is to the receiver."""

    @property
    def name(self) -> str:
        """The name of the owning pod."""

    async def pods(self) -> "list[Listed]":
        """The registry as it is now."""
