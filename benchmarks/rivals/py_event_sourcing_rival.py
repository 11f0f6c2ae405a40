"""`py-event-sourcing`: its SQLite streams, one per pod, with `synchronous` changed from NORMAL to FULL."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from py_event_sourcing import CandidateEvent, sqlite_stream_factory

from benchmarks.rivals import Registry, Rival
from benchmarks.workload import WireEvent, text_of


class PyEventSourcing:
    """Streams; concurrent callers are tasks."""

    name = "py-event-sourcing"

    def append_each(self, path: Path, events: Sequence[WireEvent], at_once: int) -> float:
        """Write each event to its pod's open stream."""
        return asyncio.run(self._append_each(path, events, at_once))

    async def _append_each(self, path: Path, events: Sequence[WireEvent], at_once: int) -> float:
        async with _streams(path) as open_stream, AsyncExitStack() as stack:
            names = dict.fromkeys(event.about for event in events)
            streams = {name: await stack.enter_async_context(open_stream(name)) for name in names}

            async def append_all(share: Sequence[WireEvent]) -> None:
                for event in share:
                    await streams[event.about].write([_candidate(event)])

            started = time.perf_counter()
            await asyncio.gather(*(append_all(events[number::at_once]) for number in range(at_once)))
            return len(events) / (time.perf_counter() - started)

    def fill(self, path: Path, events: Sequence[WireEvent]) -> None:
        """Write all events of a pod in one call."""
        asyncio.run(self._fill(path, events))

    async def _fill(self, path: Path, events: Sequence[WireEvent]) -> None:
        pods: dict[str, list[CandidateEvent]] = defaultdict(list)
        for event in events:
            pods[event.about].append(_candidate(event))
        async with _streams(path) as open_stream:
            for name, candidates in pods.items():
                async with open_stream(name) as stream:
                    await stream.write(candidates)

    def replay(self, path: Path) -> tuple[int, float]:
        """Read the stream of all streams; decode only the events that change the registry."""
        return asyncio.run(self._replay(path))

    async def _replay(self, path: Path) -> tuple[int, float]:
        registry, count = Registry(), 0
        async with _streams(path) as open_stream, open_stream("@all") as stream:
            started = time.perf_counter()
            async for stored in stream.read():
                count += 1
                if stored.type == "scope_sub_delegated":
                    registry.opened(stored.stream_id, json.loads(stored.data)["sub_socket"])
                elif stored.type == "shut_down":
                    registry.closed(stored.stream_id)
            took = time.perf_counter() - started
        return len(registry.pods), count / took


@asynccontextmanager
async def _streams(path: Path) -> AsyncIterator[Callable[[str], Any]]:
    async with sqlite_stream_factory(str(path)) as open_stream:
        async with open_stream("any") as stream:
            await stream.storage_handle.write_conn.execute("PRAGMA synchronous = FULL")
        yield open_stream


def _candidate(event: WireEvent) -> CandidateEvent:
    return CandidateEvent(type=event.kind, data=text_of(event).encode())


RIVAL: Rival = PyEventSourcing()
