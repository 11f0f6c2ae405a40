"""podledger: a flight recorder for trees of agent processes.

What is public is listed in `__all__` and loaded when it is first asked for, so that `import podledger` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podledger.errors import PodledgerError
    from podledger.events import (
        Entry,
        PodExited,
        PodReclaimed,
        PodSpawned,
        PodUnreachable,
        Sender,
        render,
    )
    from podledger.ledger import Ledger
    from podledger.outbox import Outbox
    from podledger.proof.notes import Note
    from podledger.proof.verify import Certificate
    from podledger.protocol import Errored, ScopeRule, ScopeSubDelegated, ShutDown, Stamp, TurnEnded
    from podledger.receiver import Receiver
    from podledger.reconcile import Reconciler
    from podledger.registry import Holder, Pod
    from podledger.sender import fire_and_forget, send_pod_event
    from podledger.stamps import Stamper, new_incarnation, process_stamper

__version__ = "0.1.0"

_HOMES = {
    "Certificate": "proof.verify",
    "Entry": "events",
    "Errored": "protocol",
    "Holder": "registry",
    "Ledger": "ledger",
    "Note": "proof.notes",
    "Outbox": "outbox",
    "Pod": "registry",
    "PodExited": "events",
    "PodReclaimed": "events",
    "PodSpawned": "events",
    "PodUnreachable": "events",
    "PodledgerError": "errors",
    "Receiver": "receiver",
    "Reconciler": "reconcile",
    "ScopeRule": "protocol",
    "ScopeSubDelegated": "protocol",
    "Sender": "events",
    "ShutDown": "protocol",
    "Stamp": "protocol",
    "Stamper": "stamps",
    "TurnEnded": "protocol",
    "fire_and_forget": "sender",
    "new_incarnation": "stamps",
    "process_stamper": "stamps",
    "render": "events",
    "send_pod_event": "sender",
}

__all__ = [
    "Certificate",
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
