"""The workload of every measurement: events of 1,000 pods, 70% of them the end of a turn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from podledger import Errored, ScopeRule, ScopeSubDelegated, ShutDown, TurnEnded

WireEvent = TurnEnded | Errored | ShutDown | ScopeSubDelegated
PODS: Final = 1_000
_NAMES: Final = [f"pod-{number:04}" for number in range(PODS)]
_SHARES: Final = {"turn_ended": 70, "errored": 10, "shut_down": 10, "scope_sub_delegated": 10}


def events(count: int, seed: int = 1) -> list[WireEvent]:
    """Return `count` events, the same for the same seed."""
    chance = random.Random(seed)
    kinds = chance.choices(list(_SHARES), list(_SHARES.values()), k=count)
    return [_event(kind, chance) for kind in kinds]


def batches(count: int, size: int) -> Iterator[list[WireEvent]]:
    """Yield `count` events in batches, so that they do not have to be in memory at once."""
    for start in range(0, count, size):
        yield events(min(size, count - start), seed=start)


def wire_line(event: WireEvent) -> bytes:
    """Return the event as a line on the socket."""
    return f'{{"method":"pod_event","params":{text_of(event)}}}\n'.encode()


def text_of(event: WireEvent) -> str:
    """Return the event as JSON."""
    return event.model_dump_json(exclude_none=True)


def path_of(pod: str) -> str:
    """Return a path that the pod may write while it is open."""
    return f"/srv/work/{pod}/src"


def any_pod(chance: random.Random) -> str:
    """Return the name of a random pod."""
    return chance.choice(_NAMES)


def _event(kind: str, chance: random.Random) -> WireEvent:
    pod = chance.choice(_NAMES)
    match kind:
        case "turn_ended":
            return TurnEnded(pod_name=pod)
        case "errored":
            return Errored(pod_name=pod, message=f"tool exited with status {chance.randrange(256)}: no such file")
        case "shut_down":
            return ShutDown(pod_name=pod)
        case _:
            scope = (
                ScopeRule(target=f"/srv/work/{pod}", permission="write"),
                ScopeRule(target="/srv/shared", permission="read"),
            )
            parent = chance.choice(_NAMES)
            return ScopeSubDelegated(parent_pod=parent, sub_pod=pod, sub_socket=f"/run/{pod}.sock", scope=scope)
