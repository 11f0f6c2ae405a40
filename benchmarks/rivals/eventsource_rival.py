"""`eventsource-py`: its SQLite store (WAL; SQLite's default is `synchronous=FULL`), one stream per pod."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from eventsource import DomainEvent, register_event
from eventsource.adapters.sqlite import SQLiteEventStore
from eventsource.domain import StreamId
from eventsource.ports import ExpectedVersion, FeedReadOptions

from benchmarks.rivals import Registry, Rival
from benchmarks.workload import WireEvent
from podledger import Errored, ScopeSubDelegated, ShutDown

PAGE = 5_000


@register_event
class PodTurnEnded(DomainEvent):
    """A turn ended."""

    event_type: str = "PodTurnEnded"
    aggregate_type: str = "Pod"
    pod_name: str


@register_event
class PodErrored(DomainEvent):
    """A pod reported an error."""

    event_type: str = "PodErrored"
    aggregate_type: str = "Pod"
    pod_name: str
    message: str


@register_event
class PodShutDown(DomainEvent):
    """A pod stopped."""

    event_type: str = "PodShutDown"
    aggregate_type: str = "Pod"
    pod_name: str


@register_event
class PodDelegated(DomainEvent):
    """A pod was granted a scope."""

    event_type: str = "PodDelegated"
    aggregate_type: str = "Pod"
    pod_name: str
    parent_pod: str
    socket: str
    scope: list[dict[str, Any]]


class EventSource:
    """A store; concurrent callers are tasks."""

    name = "eventsource-py"

    def append_each(self, path: Path, events: Sequence[WireEvent], at_once: int) -> float:
        """Append each event to its pod's stream."""
        return asyncio.run(self._append_each(path, events, at_once))

    async def _append_each(self, path: Path, events: Sequence[WireEvent], at_once: int) -> float:
        store = SQLiteEventStore(str(path))
        await store.current_position()

        async def append_all(share: Sequence[WireEvent]) -> None:
            for reported in share:
                await store.append(_stream(reported.about), [_domain_event(reported)], ExpectedVersion.any_())

        started = time.perf_counter()
        await asyncio.gather(*(append_all(events[number::at_once]) for number in range(at_once)))
        took = time.perf_counter() - started
        await store.close()
        return len(events) / took

    def fill(self, path: Path, events: Sequence[WireEvent]) -> None:
        """Append all events of a pod in one call."""
        asyncio.run(self._fill(path, events))

    async def _fill(self, path: Path, events: Sequence[WireEvent]) -> None:
        store = SQLiteEventStore(str(path))
        streams: dict[str, list[DomainEvent]] = defaultdict(list)
        for reported in events:
            streams[reported.about].append(_domain_event(reported))
        for name, stored in streams.items():
            await store.append(_stream(name), stored, ExpectedVersion.any_())
        await store.close()

    def replay(self, path: Path) -> tuple[int, float]:
        """Read all streams in pages; each event becomes a domain event."""
        return asyncio.run(self._replay(path))

    async def _replay(self, path: Path) -> tuple[int, float]:
        store = SQLiteEventStore(str(path))
        registry, count, at, seen = Registry(), 0, None, PAGE
        started = time.perf_counter()
        while seen == PAGE:
            seen = 0
            async for envelope in store.read_all(at, FeedReadOptions(limit=PAGE)):
                match envelope.event:
                    case PodDelegated() as stored:
                        registry.opened(stored.pod_name, stored.socket)
                    case PodShutDown() as stored:
                        registry.closed(stored.pod_name)
                at, seen = envelope.position, seen + 1
            count += seen
        took = time.perf_counter() - started
        await store.close()
        return len(registry.pods), count / took


def _stream(pod: str) -> StreamId:
    return StreamId(aggregate_id=uuid5(NAMESPACE_URL, pod), category="Pod")


def _domain_event(reported: WireEvent) -> DomainEvent:
    about = {"aggregate_id": uuid5(NAMESPACE_URL, reported.about), "pod_name": reported.about, "aggregate_version": 1}
    match reported:
        case ScopeSubDelegated():
            scope = [rule.model_dump() for rule in reported.scope]
            return PodDelegated(parent_pod=reported.parent_pod, socket=reported.sub_socket, scope=scope, **about)
        case Errored():
            return PodErrored(message=reported.message, **about)
        case ShutDown():
            return PodShutDown(**about)
        case _:
            return PodTurnEnded(**about)


RIVAL: Rival = EventSource()
