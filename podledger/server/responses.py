"""What clients are told: an error for what is not taken, the registry if they ask. None can hold up the others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from podledger.core.errors import PodledgerError
from podledger.core.protocol import error_frame, frame, pods_listed_frame
from podledger.ledger import Ledger
from podledger.queries.registry import Pod, registry_bytes
from podledger.server.connection import ClientConnection
from podledger.server.ingest_queue import IngestQueue
from podledger.server.limits import Limits

logger = logging.getLogger("podledger.receiver")


class Responses:
    """Responses connections; `answered` is called with each that has its list, `hang_up` with one that will not read.

    Those who ask for the registry while it is read share the next reading of it.
    """

    def __init__(
        self,
        ledger: Ledger,
        committer: IngestQueue,
        limits: Limits,
        *,
        answered: Callable[[ClientConnection], None],
        hang_up: Callable[[ClientConnection], None],
    ) -> None:
        self._ledger = ledger
        self._committer = committer
        self._limits = limits
        self._answered = answered
        self._hang_up = hang_up
        self._loop = asyncio.get_running_loop()
        self._asking: deque[tuple[int, ClientConnection]] = deque()
        self._sending: set[ClientConnection] = set()
        self._unread: dict[ClientConnection, float] = {}
        self._task: asyncio.Task[None] | None = None

    def refuse(self, connection: ClientConnection, message: str) -> None:
        """Say that a line is not taken, to a client that reads its answers."""
        connection.answer(error_frame(message))
        self._send_on(connection)

    def ask(self, connection: ClientConnection) -> None:
        """List the pods for a client, once all is committed that it sent before."""
        connection.asked_at = time.monotonic()
        self._asking.append((self._committer.taken, connection))
        self._committer.hurry()
        self.go_on()

    def go_on(self) -> None:
        """Answer those who need wait no longer."""
        if self._task is None and self._is_due():
            self._task = asyncio.create_task(self._list_pods(), name="podledger-answers")

    def forget(self, connection: ClientConnection) -> None:
        """Send nothing more on a connection that is about to be closed."""
        self._unread.pop(connection, None)
        if connection in self._sending:
            self._sending.discard(connection)
            self._loop.remove_writer(connection.fd)

    def sweep(self) -> None:
        """Hang up on those who have not read their answer in time."""
        earliest = time.monotonic() - self._limits.answer_timeout_s
        for connection in [each for each, since in self._unread.items() if since < earliest]:
            self._hang_up(connection)

    async def close(self) -> None:
        """Answer no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _is_due(self) -> bool:
        return bool(self._asking) and self._asking[0][0] <= self._committer.settled

    async def _list_pods(self) -> None:
        try:
            while self._is_due():
                due: list[ClientConnection] = []
                while self._is_due():
                    due.append(self._asking.popleft()[1])
                answer = await self._listing()
                for connection in due:
                    self._give(connection, answer)
        finally:
            self._task = None

    async def _listing(self) -> bytes:
        try:
            size = await self._ledger.read(partial(registry_bytes, ledger=self._ledger.name))
            if size <= self._limits.max_listed_bytes:
                return await asyncio.to_thread(_listed, await self._ledger.pods())
            message = f"the registry takes {size:,} bytes, too many to list here: use `podledger pods`"
        except PodledgerError as error:
            message = error.message
        except Exception as error:
            logger.exception("the registry could not be listed")
            message = repr(error)
        return frame({"event": "error", "data": {"code": "internal", "message": message}})

    def _give(self, connection: ClientConnection, answer: bytes) -> None:
        if connection.closed:
            return
        connection.answer(answer, whole=True)
        self._unread[connection] = time.monotonic()
        self._send_on(connection)
        while len(self._unread) > 1 and self._unread_bytes() > self._limits.max_unsent_bytes:
            self._hang_up(next(iter(self._unread)))

    def _unread_bytes(self) -> int:
        return sum(len(connection.unsent) for connection in self._unread)

    def _send_on(self, connection: ClientConnection) -> None:
        """See that what is kept of an answer goes out as the client reads."""
        if not connection.unsent:
            self._sent(connection)
        elif connection not in self._sending:
            self._sending.add(connection)
            self._loop.add_writer(connection.fd, self._on_writable, connection)

    def _on_writable(self, connection: ClientConnection) -> None:
        connection.flush()
        if not connection.unsent:
            self._sent(connection)

    def _sent(self, connection: ClientConnection) -> None:
        has_list = connection in self._unread
        self.forget(connection)
        if has_list:
            connection.asked_at = None
            self._answered(connection)


def _listed(pods: list[Pod]) -> bytes:
    return pods_listed_frame([pod.as_json() for pod in pods])
