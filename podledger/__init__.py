"""podledger: a flight recorder for trees of agent processes.

`__all__` lists the public names. Each is imported when you first use it, so that `import podledger` stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors; tests/test_house.py compares it with _HOMES
    from podledger.client.event_sender import EventSender as EventSender
    from podledger.client.frames import Recorded as Recorded
    from podledger.client.sender import fire_and_forget as fire_and_forget
    from podledger.client.sender import send_pod_event as send_pod_event
    from podledger.client.spawning import PreparedSpawn as PreparedSpawn
    from podledger.client.spawning import prepare_spawn as prepare_spawn
    from podledger.core.entries import Entry as Entry
    from podledger.core.entries import Sender as Sender
    from podledger.core.errors import PodledgerError as PodledgerError
    from podledger.core.events import Errored as Errored
    from podledger.core.events import PodExited as PodExited
    from podledger.core.events import PodReclaimed as PodReclaimed
    from podledger.core.events import PodSpawned as PodSpawned
    from podledger.core.events import PodUnreachable as PodUnreachable
    from podledger.core.events import ScopeSubDelegated as ScopeSubDelegated
    from podledger.core.events import ShutDown as ShutDown
    from podledger.core.events import TurnEnded as TurnEnded
    from podledger.core.fields import ScopeRule as ScopeRule
    from podledger.core.fields import Stamp as Stamp
    from podledger.core.render import render as render
    from podledger.core.stamps import Stamper as Stamper
    from podledger.core.stamps import new_incarnation as new_incarnation
    from podledger.core.stamps import process_stamper as process_stamper
    from podledger.integrity.notes import Note as Note
    from podledger.integrity.verify import VerifyResult as VerifyResult
    from podledger.ledger import Ledger as Ledger
    from podledger.queries.holders import Holder as Holder
    from podledger.queries.registry import Pod as Pod
    from podledger.server.receiver import Receiver as Receiver
    from podledger.services.outbox import Outbox as Outbox
    from podledger.services.reconciler import Reconciler as Reconciler
    from podledger.services.spool_sweeper import SpoolSweeper as SpoolSweeper

__version__ = "0.1.0"

_HOMES = {
    "Entry": "core.entries",
    "Errored": "core.events",
    "EventSender": "client.event_sender",
    "Holder": "queries.holders",
    "Ledger": "ledger",
    "Note": "integrity.notes",
    "Outbox": "services.outbox",
    "Pod": "queries.registry",
    "PodExited": "core.events",
    "PodReclaimed": "core.events",
    "PodSpawned": "core.events",
    "PodUnreachable": "core.events",
    "PreparedSpawn": "client.spawning",
    "prepare_spawn": "client.spawning",
    "PodledgerError": "core.errors",
    "Receiver": "server.receiver",
    "Recorded": "client.frames",
    "Reconciler": "services.reconciler",
    "ScopeRule": "core.fields",
    "ScopeSubDelegated": "core.events",
    "Sender": "core.entries",
    "ShutDown": "core.events",
    "SpoolSweeper": "services.spool_sweeper",
    "Stamp": "core.fields",
    "Stamper": "core.stamps",
    "TurnEnded": "core.events",
    "VerifyResult": "integrity.verify",
    "fire_and_forget": "client.sender",
    "new_incarnation": "core.stamps",
    "process_stamper": "core.stamps",
    "render": "core.render",
    "send_pod_event": "client.sender",
}
"""The public names, each with the module that defines it."""

__all__ = sorted(_HOMES)  # noqa: PLE0605 - type checkers read the imports above


if not TYPE_CHECKING:  # hidden from type checkers, so that they report a name that does not exist

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'podledger' has no attribute {name!r}")
        return getattr(import_module(f"podledger.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
