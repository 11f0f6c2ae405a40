"""Answers to `list_pods`. Clients that ask at the same time share one query of the registry."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial

from podledger.core.errors import PodledgerError
from podledger.core.protocol import frame, pods_listed_frame
from podledger.ledger import Ledger
from podledger.queries.registry import Pod, registry_bytes
from podledger.server.connection import ClientConnection, State
from podledger.server.ingest_queue import IngestQueue
from podledger.server.limits import Limits

logger = logging.getLogger("podledger.receiver")


class Responses:
    """Lists the pods for clients, each once everything that it sent before is committed.

    It closes connections whose clients do not read their answer, so that they do not delay other clients.
    """

    def __init__(self, ledger: Ledger, queue: IngestQueue, limits: Limits) -> None:
        self._ledger = ledger
        self._queue = queue
        self._limits = limits
        self._asking: deque[tuple[int, ClientConnection]] = deque()
        self._unread: list[ClientConnection] = []
        self._task: asyncio.Task[None] | None = None
        self._listed: tuple[object, bytes] = (None, b"")

    async def list_pods(self, connection: ClientConnection) -> None:
        """Answer a client; return when it has read the answer, or the connection is closed."""
        if connection.is_closed:
            return
        self._asking.append((self._queue.taken, connection))
        self._queue.hurry()
        if self._task is None:
            self._task = asyncio.create_task(self._answer_all(), name="podledger-responses")
        await connection.ask()

    def sweep(self) -> None:
        """Close the connections whose clients have not read their answer in time."""
        earliest = time.monotonic() - self._limits.answer_timeout_s
        for connection in self._reading():
            if connection.answered_at < earliest:
                connection.close()

    async def close(self) -> None:
        """Send no more answers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _answer_all(self) -> None:
        try:
            while self._asking:
                await self._queue.committed(self._asking[0][0])
                due: list[ClientConnection] = []
                while self._asking and self._asking[0][0] <= self._queue.settled:
                    due.append(self._asking.popleft()[1])
                answer = await self._listing()
                for connection in due:
                    self._give(connection, answer)
        finally:
            self._task = None

    async def _listing(self) -> bytes:
        """Return the answer, made once for each state of the ledger: a client may ask in a loop."""
        try:
            head = await self._ledger.head()
            state = (head.head_digest, head.rebuilds)
            if state != self._listed[0]:
                self._listed = (state, await self._list())
            return self._listed[1]
        except PodledgerError as error:
            message = error.message
        except Exception as error:
            logger.exception("the registry could not be listed")
            message = repr(error)
        return _refusal(message)

    async def _list(self) -> bytes:
        size = await self._ledger.read(partial(registry_bytes, ledger=self._ledger.name))
        if size <= self._limits.max_listed_bytes:
            return await asyncio.to_thread(_listed, await self._ledger.pods())
        return _refusal(f"the registry takes {size:,} bytes, too many to list here: use `podledger pods`")

    def _give(self, connection: ClientConnection, answer: bytes) -> None:
        """Send an answer; if too much is unread then, close the connections that have had theirs for longest."""
        connection.give(answer)
        if connection.state is State.ANSWERING:
            self._unread.append(connection)
            unread = self._reading()
            while len(unread) > 1 and sum(len(each.outgoing) for each in unread) > self._limits.max_unsent_bytes:
                unread.pop(0).close()

    def _reading(self) -> list[ClientConnection]:
        """Return the connections whose clients have not read their whole answer, those that got it first in front."""
        self._unread = [each for each in self._unread if each.state is State.ANSWERING]
        return list(self._unread)


def _refusal(message: str) -> bytes:
    return frame({"event": "error", "data": {"code": "internal", "message": message}})


def _listed(pods: list[Pod]) -> bytes:
    return pods_listed_frame([pod.as_json() for pod in pods])
