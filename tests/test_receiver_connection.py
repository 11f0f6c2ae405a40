"""The states of a client's connection, and the queue between connections and the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from podledger.core.entries import Sender, draft
from podledger.server.connection import ClientConnection, Peer, State
from podledger.server.ingest_queue import IngestQueue
from podledger.server.limits import Limits
from podledger.store.append import Appended
from tests.given import OWNER, turned
from tests.support import connected, fresh_ledger
from tests.waiting import wait_until


@contextlib.asynccontextmanager
async def connection_pair() -> AsyncIterator[tuple[ClientConnection, socket.socket]]:
    """A connection, and its client's socket."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = ClientConnection(ours, Sender(1, 2, 3), Peer(1), 1000, lambda _: None)
    try:
        yield connection, theirs
    finally:
        connection.close()
        theirs.close()


async def test_listening_ends_when_the_client_sends() -> None:
    async with connection_pair() as (connection, client):
        listening = asyncio.create_task(connection.listen())
        await wait_until(lambda: connection.state is State.LISTENING)
        client.sendall(b"line\n")
        assert await listening
        assert connection.receive()
        assert (connection.state, connection.lines.holds_message) == (State.TAKING, True)


async def test_asking_ends_when_the_client_has_read_the_answer() -> None:
    async with connection_pair() as (connection, client):
        asking = asyncio.create_task(connection.ask())
        await wait_until(lambda: connection.state is State.ASKING)
        answer = b"x" * (4 << 20)
        connection.give(answer)
        assert connection.state is State.ANSWERING
        read = await asyncio.to_thread(client.recv, len(answer), socket.MSG_WAITALL)
        await asking
        assert (read, connection.state) == (answer, State.TAKING)


async def test_response_nobody_asked_for_is_not_sent() -> None:
    async with connection_pair() as (connection, client):
        connection.give(b"answer\n")
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            assert not client.recv(1)


async def test_closing_ends_every_wait() -> None:
    for wait in (ClientConnection.listen, ClientConnection.ask):
        async with connection_pair() as (connection, _):
            waiting = asyncio.create_task(wait(connection))
            await asyncio.sleep(0)
            connection.close()
            assert not await asyncio.wait_for(waiting, 5)
            assert not await connection.listen()
            assert connection.state is State.CLOSED


async def test_refused_lines_are_committed_in_their_order() -> None:
    async with fresh_ledger(busy_timeout_s=0.01) as ledger, connection_pair() as (connection, _):
        queue = IngestQueue(ledger.commits, Limits(max_batch=3))
        with connected(ledger.database.path) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(5):
                queue.put(draft(turned(f"p{number}"), OWNER), connection)
            await wait_until(lambda: queue.trouble)
            assert not queue.has_room_for(connection)
            queue.put(draft(turned("p5"), OWNER), connection)
            other.execute("ROLLBACK")
        await queue.committed(6)
        assert [entry.pod_name async for entry in ledger.entries()] == [f"p{number}" for number in range(6)]
        assert (queue.trouble, queue.has_room_for(connection), connection.peer.queued) == ("", True, 0)
        await queue.finish(0)


async def test_received_lines_share_a_transaction_with_appends() -> None:
    async with fresh_ledger() as ledger, connection_pair() as (connection, _):
        batches: list[Appended] = []
        ledger.on_commit(batches.append)
        queue = IngestQueue(ledger.commits, Limits(max_batch=100))
        queue.put(draft(turned("received"), OWNER), connection)
        queue.hurry()
        first, second = asyncio.create_task(ledger.append(turned("a"))), asyncio.create_task(ledger.append(turned("b")))
        await asyncio.gather(first, second, queue.committed(1))
        await queue.finish(0)
        assert sum(len(batch.entries) for batch in batches) == 3
        assert len(batches) < 3


async def test_process_has_a_quarter_of_the_queue() -> None:
    async with fresh_ledger() as ledger, connection_pair() as (busy, _), connection_pair() as (other, _):
        queue = IngestQueue(ledger.commits, Limits(max_queued=8))
        for _ in range(2):
            queue.put(draft(turned("p"), OWNER), busy)
        assert (queue.has_room_for(busy), queue.has_room_for(other)) == (False, True)
        await queue.finish(1)
