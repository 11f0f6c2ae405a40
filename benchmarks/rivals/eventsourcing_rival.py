"""`eventsourcing`: an application of aggregates, on its SQLite recorder (WAL; `synchronous=FULL` is the default)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from benchmarks.rivals import Registry, Rival
from benchmarks.workload import WireEvent
from podledger import Errored, ScopeSubDelegated, ShutDown

PAGE = 1_000


class Pod(Aggregate):
    """One pod and its reports."""

    @event("Created")
    def __init__(self, name: str) -> None:
        self.name = name

    @event("TurnEnded")
    def end_turn(self) -> None:
        """A turn ended."""

    @event("Errored")
    def fail(self, message: str) -> None:
        """The pod reported an error."""

    @event("ShutDown")
    def shut_down(self) -> None:
        """The pod stopped."""

    @event("Delegated")
    def delegate(self, parent: str, socket: str, scope: list[dict[str, Any]]) -> None:
        """The pod was granted a scope."""

    def report(self, reported: WireEvent) -> None:
        """Trigger the event of the aggregate."""
        match reported:
            case ScopeSubDelegated():
                scope = [rule.model_dump() for rule in reported.scope]
                self.delegate(reported.parent_pod, reported.sub_socket, scope)
            case Errored():
                self.fail(reported.message)
            case ShutDown():
                self.shut_down()
            case _:
                self.end_turn()


class EventSourcing:
    """An application; concurrent callers are threads, because the library is synchronous."""

    name = "eventsourcing"

    def append_each(self, path: Path, events: Sequence[WireEvent], at_once: int) -> float:
        """Save each event; one thread appends all events of a pod, so that its versions do not collide."""
        app = _application(path)
        pods = _pods(app, events)
        order = {name: number for number, name in enumerate(pods)}
        shares = [[e for e in events if order[e.about] % at_once == number] for number in range(at_once)]

        def append_all(share: list[WireEvent]) -> None:
            for reported in share:
                pod = pods[reported.about]
                pod.report(reported)
                app.save(pod)

        with ThreadPoolExecutor(at_once) as threads:
            started = time.perf_counter()
            list(threads.map(append_all, shares))
            took = time.perf_counter() - started
        app.close()
        return len(events) / took

    def fill(self, path: Path, events: Sequence[WireEvent]) -> None:
        """Save 1,000 events per call."""
        app = _application(path)
        pods = _pods(app, events)
        for start in range(0, len(events), PAGE):
            for reported in events[start : start + PAGE]:
                pods[reported.about].report(reported)
            app.save(*pods.values())
        app.close()

    def replay(self, path: Path) -> tuple[int, float]:
        """Read the notifications in pages; each becomes a domain event."""
        app = _application(path)
        registry, count, start = Registry(), 0, 1
        names: dict[Any, str] = {}
        started = time.perf_counter()
        while page := app.recorder.select_notifications(start, PAGE):
            for notification in page:
                stored: Any = app.mapper.to_domain_event(notification)
                match type(stored).__name__:
                    case "Created":
                        names[stored.originator_id] = stored.name
                    case "Delegated":
                        registry.opened(names[stored.originator_id], stored.socket)
                    case "ShutDown":
                        registry.closed(names[stored.originator_id])
            count += len(page)
            start = page[-1].id + 1
        took = time.perf_counter() - started
        app.close()
        return len(registry.pods), count / took


def _application(path: Path) -> Application[Any]:
    return Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})


def _pods(app: Application[Any], events: Sequence[WireEvent]) -> dict[str, Pod]:
    pods = {name: Pod(name) for name in dict.fromkeys(e.about for e in events)}
    app.save(*pods.values())
    return pods


RIVAL: Rival = EventSourcing()
