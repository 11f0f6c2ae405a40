"""The ledger that `docs/sql.md` queries: much went wrong in it, in the same way each time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from podledger.core.entries import Relation, Sender, draft
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
from podledger.core.times import timestamp
from podledger.ledger import Ledger
from tests.clocks import Clock

BEGAN_S = int(datetime(2026, 1, 31, 14, tzinfo=UTC).timestamp())
INCARNATIONS = {name: f"019c14{number:02x}-0000-7000-8000-000000000000" for number, name in enumerate(
    ("root", "planner", "auditor", "coder", "tester"), 1
)}  # fmt: skip
PROCESSES = {"planner": 4101, "auditor": 4102, "coder": 4103, "tester": 4104}
RELATIONS: dict[int, Relation] = {4101: "pod", 4102: "pod", 4199: "other"}
"""The relations that the receiver would find for the senders of the two pods whose process the owner knows."""


def scope(*rules: str) -> tuple[ScopeRule, ...]:
    """Return a scope from rules such as `write:/path`."""
    words = (rule.split(":", 1) for rule in rules)
    return tuple(ScopeRule.model_validate({"permission": permission, "target": target}) for permission, target in words)


def stamp(by: str, sequence: int, after_s: int, about: str | None = None) -> Stamp:
    """Return the stamp that the pod `by` puts on its event of that number."""
    return Stamp(
        id=f"00000000-0000-4000-8000-{list(INCARNATIONS).index(by):06x}{sequence:06x}",
        source=INCARNATIONS[by],
        sequence=sequence,
        time=timestamp((BEGAN_S + after_s) * 1_000_000),
        subject=INCARNATIONS[about or by],
    )


def story() -> Iterator[tuple[int, LedgerEvent, int | None]]:
    """Yield each event with the seconds since the beginning and the process that sent it."""
    planner, coder = PROCESSES["planner"], PROCESSES["coder"]
    yield 0, spawned("planner", 1, "write:/srv/app"), None
    yield 5, spawned("auditor", 2, "read:/srv/app", "write:/srv/app/reports"), None
    yield 20, lent("coder", 1, 20, "write:/srv/app/src"), planner
    yield 41, TurnEnded(pod_name="planner", stamp=stamp("planner", 2, 41)), planner
    failed = "3 tests failed\n\x1b[2J\x1b[32mall is well"
    yield 70, Errored(pod_name="coder", message=failed, stamp=stamp("coder", 1, 70)), coder
    wider = lent("tester", 3, 98, "read:/srv", "write:/srv/app/tmp")
    yield 100, wider, planner
    yield 101, wider, planner
    yield 115, TurnEnded(pod_name="coder", stamp=stamp("coder", 4, 114)), coder
    other = ScopeSubDelegated(parent_pod="planner", sub_pod="coder", sub_socket="/run/coder-2", scope=())
    yield 130, other, planner
    yield 160, PodUnreachable(pod_name="coder", reason="Connection refused", attempt=1), None
    yield 190, PodUnreachable(pod_name="coder", reason="Connection refused", attempt=2), None
    yield 190, PodReclaimed(pod_name="coder", reason="unreachable 2 times in 30 s: Connection refused"), None
    yield 204, TurnEnded(pod_name="coder", stamp=stamp("coder", 5, 203)), coder
    yield 240, ShutDown(pod_name="planner", stamp=stamp("planner", 5, 240)), planner
    yield 243, TurnEnded(pod_name="planner", stamp=stamp("planner", 4, 238)), planner
    yield 250, Errored(pod_name="scout", message="who am I?"), 4999
    yield 262, TurnEnded(pod_name="auditor", stamp=stamp("auditor", 1, 262)), 4199
    yield 300, PodExited(pod_name="auditor", signal=9), None


def spawned(name: str, sequence: int, *rules: str) -> PodSpawned:
    """Return the event that the owner spawned `name`."""
    return PodSpawned(
        pod_name=name,
        socket_path=f"/run/{name}",
        scope=scope(*rules),
        pid=PROCESSES[name],
        stamp=stamp("root", sequence, 0, name),
    )


def lent(name: str, sequence: int, after_s: int, *rules: str) -> ScopeSubDelegated:
    """Return the event that the planner spawned `name`."""
    return ScopeSubDelegated(
        parent_pod="planner",
        sub_pod=name,
        sub_socket=f"/run/{name}",
        scope=scope(*rules),
        stamp=stamp("planner", sequence, after_s, name),
    )


async def record(path: Path) -> None:
    """Record the story in the ledger of `root` at `path`; the agent has read its first two notifications."""
    clock = Clock(BEGAN_S, step_s=0)
    async with Ledger.open(path, "root", clock=clock) as ledger:
        for after_s, event, process in story():
            clock.now_s = BEGAN_S + after_s
            sender = None if process is None else Sender(process, 1000, 1000, RELATIONS.get(process))
            await ledger.commits.append([draft(event, "root", sender=sender)])
        await ledger.acknowledge(5)
