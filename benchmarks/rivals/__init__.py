"""The libraries that one would pick instead, each used in the way that it supports best, as durable as podledger.

One that cannot be imported here is reported with the reason, and not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from benchmarks.workload import WireEvent

_MODULES: Final = {
    "eventsourcing": "eventsourcing_rival",
    "eventsource-py": "eventsource_rival",
    "py-event-sourcing": "py_event_sourcing_rival",
}


class Rival(Protocol):
    """What is measured of a library; times are in seconds, rates in events a second."""

    name: str

    def append_each(self, path: Path, events: Sequence[WireEvent], at_once: int) -> float:
        """Append each event durably by itself, so many callers at the same time; the rate."""

    def fill(self, path: Path, events: Sequence[WireEvent]) -> None:
        """Put events into a new store, however is quickest."""

    def replay(self, path: Path) -> tuple[int, float]:
        """Fold all events of a store, in their order, into a registry: how many pods stand, and the rate."""


class Found(NamedTuple):
    """The rivals that are here, and of all the version, or why it is not here."""

    rivals: list[Rival]
    known: dict[str, str]


def find() -> Found:
    """Import what can be imported."""
    found = Found([], {})
    for name, module in _MODULES.items():
        try:
            found.rivals.append(import_module(f"benchmarks.rivals.{module}").RIVAL)
            found.known[name] = version(name)
        except ImportError as error:
            found.known[name] = f"not here: {error}"
    return found


class Registry:
    """What a replay folds into: the pods that stand, as the seed system would have them."""

    def __init__(self) -> None:
        self.pods: dict[str, str] = {}

    def opened(self, pod: str, socket: str) -> None:
        """A pod was delegated."""
        self.pods.setdefault(pod, socket)

    def closed(self, pod: str) -> None:
        """A pod has stopped."""
        self.pods.pop(pod, None)
