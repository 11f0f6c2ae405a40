"""podledger: a flight append for trees of agent processes.

What is public is listed in `__all__` and loaded when it is first asked for, so that `import podledger` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podledger.client.sender import fire_and_forget, send_pod_event
    from podledger.core.entries import Entry, Sender
    from podledger.core.errors import PodledgerError
    from podledger.core.events import (
        Errored,
        PodExited,
        PodReclaimed,
        PodSpawned,
        PodUnreachable,
        ScopeSubDelegated,
        ShutDown,
        TurnEnded,
    )
    from podledger.core.fields import ScopeRule, Stamp
    from podledger.core.render import render
    from podledger.core.stamps import Stamper, new_incarnation, process_stamper
    from podledger.integrity.notes import Note
    from podledger.integrity.verify import VerifyResult
    from podledger.ledger import Ledger
    from podledger.queries.holders import Holder
    from podledger.queries.registry import Pod
    from podledger.server.receiver import Receiver
    from podledger.services.outbox import Outbox
    from podledger.services.reconciler import Reconciler

__version__ = "0.1.0"

_HOMES = {
    "VerifyResult": "integrity.verify",
    "Entry": "core.entries",
    "Errored": "core.events",
    "Holder": "queries.holders",
    "Ledger": "ledger",
    "Note": "integrity.notes",
    "Outbox": "services.outbox",
    "Pod": "queries.registry",
    "PodExited": "core.events",
    "PodReclaimed": "core.events",
    "PodSpawned": "core.events",
    "PodUnreachable": "core.events",
    "PodledgerError": "core.errors",
    "Receiver": "server.receiver",
    "Reconciler": "services.reconciler",
    "ScopeRule": "core.fields",
    "ScopeSubDelegated": "core.events",
    "Sender": "core.entries",
    "ShutDown": "core.events",
    "Stamp": "core.fields",
    "Stamper": "core.stamps",
    "TurnEnded": "core.events",
    "fire_and_forget": "client.sender",
    "new_incarnation": "core.stamps",
    "process_stamper": "core.stamps",
    "render": "core.render",
    "send_pod_event": "client.sender",
}

__all__ = [
    "Entry",
    "Errored",
    "Holder",
    "Ledger",
    "Note",
    "Outbox",
    "Pod",
    "PodExited",
    "PodReclaimed",
    "PodSpawned",
    "PodUnreachable",
    "PodledgerError",
    "Receiver",
    "Reconciler",
    "ScopeRule",
    "ScopeSubDelegated",
    "Sender",
    "ShutDown",
    "Stamp",
    "Stamper",
    "TurnEnded",
    "VerifyResult",
    "fire_and_forget",
    "new_incarnation",
    "process_stamper",
    "render",
    "send_pod_event",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'podledger' has no attribute {name!r}")
    return getattr(import_module(f"podledger.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
