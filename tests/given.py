"""Events, stamps, scopes and ledgers in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from podledger.core.entries import Sender, draft
from podledger.core.events import (
    Errored,
    LedgerEvent,
    PodExited,
    PodReclaimed,
    PodSpawned,
    PodUnreachable,
    ScopeSubDelegated,
    ShutDown,
    TurnEnded,
)
from podledger.core.fields import ScopeRule, Stamp
from podledger.ledger import Ledger
from podledger.store.log import Rejection
from tests.clocks import Clock

OWNER = "root"


def incarnation(number: int) -> str:
    """Return the incarnation of that number; a greater number is newer."""
    return f"{number:08x}-0000-7000-8000-000000000000"


_emissions = count(1_000)


def stamp(speaker: int, sequence: int, subject: int | None) -> Stamp:
    """Return a stamp about incarnation `subject`, from the stream of incarnation `speaker`; 0 speaks for none."""
    return Stamp(
        id=f"00000000-0000-4000-8000-{speaker:06x}{sequence:06x}",
        source=incarnation(speaker),
        sequence=sequence,
        time="2026-01-31T14:03:00Z",
        subject=None if subject is None else incarnation(subject),
        speaker=incarnation(speaker) if speaker else None,
    )


def stamped(
    event: LedgerEvent, subject: int | None, speaker: int | None = None, sequence: int | None = None
) -> LedgerEvent:
    """Return `event` with a stamp about incarnation `subject`, from incarnation `speaker` (by default the same one).

    Each call is another emission of the speaker's stream, unless `sequence` numbers it.
    """
    speaking = speaker if speaker is not None else subject or 0
    number = next(_emissions) if sequence is None else sequence
    return event.model_copy(update={"stamp": stamp(speaking, number, subject)})


def writes(*targets: str, recursive: bool = True) -> tuple[ScopeRule, ...]:
    """Return a scope of write rules."""
    return tuple(ScopeRule(target=target, permission="write", recursive=recursive) for target in targets)


def spawned(name: str, socket: str = "/run/s", scope: tuple[ScopeRule, ...] = (), callback: str = "") -> LedgerEvent:
    """Return the event that the owner spawned `name`."""
    return PodSpawned(pod_name=name, socket_path=socket, scope=scope, callback_address=callback)


def delegated(name: str, socket: str = "/run/s", scope: tuple[ScopeRule, ...] = (), parent: str = "mid") -> LedgerEvent:
    """Return the event that `parent` spawned `name`."""
    return ScopeSubDelegated(parent_pod=parent, sub_pod=name, sub_socket=socket, scope=scope)


def turned(name: str) -> LedgerEvent:
    """Return the event that `name` finished a turn."""
    return TurnEnded(pod_name=name)


def errored(name: str, message: str) -> LedgerEvent:
    """Return the event that `name` reports an error."""
    return Errored(pod_name=name, message=message)


def stopped(name: str) -> LedgerEvent:
    """Return the event that `name` has stopped."""
    return ShutDown(pod_name=name)


def reclaimed(name: str) -> LedgerEvent:
    """Return the event that the owner reclaims the silent `name`."""
    return PodReclaimed(pod_name=name, reason="silent")


def exited(name: str) -> LedgerEvent:
    """Return the event that the owner saw `name` exit."""
    return PodExited(pod_name=name, exit_code=0)


def unreachable(name: str) -> LedgerEvent:
    """Return the event that a probe of `name` failed."""
    return PodUnreachable(pod_name=name, reason="refused")


def history() -> list[LedgerEvent]:
    """Return the history of a small tree: two children, a grandchild, an error, and a shutdown that arrives twice."""
    return [
        spawned("planner", "/run/planner", writes("/srv")),
        spawned("scout", "/run/scout", writes("/tmp")),
        delegated("coder", "/run/coder", writes("/srv/app"), parent="planner"),
        turned("coder"),
        errored("scout", "\x1b[2J gone, 雪 \u2028 'quoted' \"twice\""),
        stopped("coder"),
        stopped("coder"),
        turned("planner"),
    ]


async def make_ledger(path: Path, name: str = OWNER, events: Sequence[LedgerEvent] | None = None) -> None:
    """Append a history to the ledger at `path`, each event in a transaction, and reject one line."""
    async with Ledger.open(path, name, clock=Clock()) as ledger:
        for event in history() if events is None else events:
            sender = Sender(4242, 1000, 1000) if event.kind in ("turn_ended", "errored", "shut_down") else None
            await ledger.commits.append([draft(event, ledger.name, sender=sender)])
        await ledger.commits.append([], [Rejection(b"\xff no event", "not UTF-8 at byte 0", Sender(4242, 1000, 1000))])
