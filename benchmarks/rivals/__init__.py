"""Alternative libraries, each used in the way that it supports best, and as durable as podledger.

A library that cannot be imported is reported with the reason, and not measured.
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
    """The measurements of a library; rates are in events per second."""

    name: str

    def append_each(self, path: Path, events: Sequence[WireEvent], at_once: int) -> float:
        """Append each event durably by itself, from `at_once` concurrent callers; return the rate."""

    def fill(self, path: Path, events: Sequence[WireEvent]) -> None:
        """Put events into a new store, in the fastest way."""

    def replay(self, path: Path) -> tuple[int, float]:
        """Fold all events of a store into a registry, in order; return the number of open pods and the rate."""


class Found(NamedTuple):
    """The installed rivals, and per rival its version or the reason why it is missing."""

    rivals: list[Rival]
    known: dict[str, str]


def find() -> Found:
    """Import the rivals that are installed."""
    found = Found([], {})
    for name, module in _MODULES.items():
        try:
            found.rivals.append(import_module(f"benchmarks.rivals.{module}").RIVAL)
            found.known[name] = version(name)
        except ImportError as error:
            found.known[name] = f"not installed: {error}"
    return found


class Registry:
    """The result of a replay: the open pods, as the original runtime (docs/protocol.md) would hold them."""

    def __init__(self) -> None:
        self.pods: dict[str, str] = {}

    def opened(self, pod: str, socket: str) -> None:
        """A pod was delegated."""
        self.pods.setdefault(pod, socket)

    def closed(self, pod: str) -> None:
        """A pod has stopped."""
        self.pods.pop(pod, None)
