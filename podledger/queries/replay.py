"""What the registry would be, had the events come otherwise: in the order of their senders, or without their stamps.

A pure fold in memory, of the states of the pod names alone. Nothing is written, sent or told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Connection, text

from podledger.core.errors import ProtocolError
from podledger.core.events import DELEGATIONS, EVIDENCE, Outcome, delegation_from, scope_from, scope_text
from podledger.core.progress import Progress
from podledger.core.rules import UNHEARD, Fact, State, fold
from podledger.queries import registry
from podledger.queries.registry import Moment

Order = Literal["logged", "sent"]

EVERY: Final = 10_000
"""How often progress is told."""


class ReplayOptions(NamedTuple):
    """What to replay: up to which moment, in which order, and whether with the stamps."""

    order: Order = "logged"
    stamps: bool = True
    at: Moment = None


class ChangedOutcome(NamedTuple):
    """An event that the replay decides otherwise than the ledger did."""

    seq: int
    kind: str
    pod_name: str
    logged: Outcome
    now: Outcome

    def as_json(self) -> dict[str, Any]:
        """The reversal as `replay --json` prints it."""
        return self._asdict()


class PodStanding(NamedTuple):
    """What the registry holds of a pod: the content of its open tenure, and the event that opened it."""

    opened_by: int
    socket_path: str
    scope: str
    parent_pod: str
    incarnation: str | None

    def as_json(self) -> dict[str, Any]:
        """What stands as `replay --json` prints it."""
        scope = [rule.model_dump() for rule in scope_from(self.scope)]
        return self._asdict() | {"scope": scope}


class ChangedPod(NamedTuple):
    """A pod that the replay leaves in another standing than the ledger has it; None: not in the registry."""

    pod_name: str
    logged: PodStanding | None
    now: PodStanding | None

    def as_json(self) -> dict[str, Any]:
        """The difference as `replay --json` prints it."""
        return {
            "pod_name": self.pod_name,
            "logged": self.logged and self.logged.as_json(),
            "now": self.now and self.now.as_json(),
        }


class ReplayResult(NamedTuple):
    """What a replay came to: up to which seq, how many events it decided otherwise, and the pods that differ."""

    until_seq: int
    reversals: int
    pods: tuple[ChangedPod, ...]


def replay(
    connection: Connection,
    ledger: str,
    plan: ReplayOptions,
    told: Callable[[ChangedOutcome], None] | None = None,
    progress: Progress | None = None,
) -> ReplayResult:
    """Fold the log as `plan` says; `told` is called for each event that is decided otherwise, in the plan's order.

    Raises:
        InvalidMomentError: the moment is not in the log.
        ProtocolError: an entry was altered.
    """
    until = registry.resolve(connection, ledger, plan.at)
    states: dict[str, State] = {}
    count = 0
    for done, (fact, logged) in enumerate(_facts(connection, ledger, until, plan), 1):
        decision = fold(states.get(fact.pod_name, UNHEARD), fact)
        states[fact.pod_name] = decision.state
        if decision.outcome != logged:
            count += 1
            if told:
                told(ChangedOutcome(fact.seq, fact.kind, fact.pod_name, logged, decision.outcome))
        if progress and done % EVERY == 0:
            progress(done, until)
    return ReplayResult(until, count, tuple(_differences(connection, ledger, until, states, plan)))


def _facts(connection: Connection, ledger: str, until: int, plan: ReplayOptions) -> Iterator[tuple[Fact, Outcome]]:
    values = {"ledger": ledger, "until": until}
    rows = connection.execute(text(_ORDERS[plan.order]), values, execution_options={"yield_per": EVERY})
    for seq, kind, evidence, pod_name, subject, source, outcome, payload in rows:
        if kind not in EVIDENCE:
            raise ProtocolError(f"entry {seq}: {kind!r} is no kind of event")
        content = delegation_from(kind, payload, ledger) if kind in DELEGATIONS else None
        if not plan.stamps:
            subject = source = None  # noqa: PLW2901 - the event as it would be without
        yield Fact(seq, kind, evidence, pod_name, subject, source, content), outcome


_COLUMNS = f"""e.seq, e.kind, e.evidence, e.pod_name, e.subject, e.source, e.outcome,
    CASE WHEN e.kind IN ({", ".join(f"'{kind}'" for kind in sorted(DELEGATIONS))}) THEN e.payload END"""

_LOGGED: Final = f"SELECT {_COLUMNS} FROM events AS e WHERE e.ledger = :ledger AND e.seq <= :until ORDER BY e.seq"

_SENT: Final = f"""
WITH placed AS (
    SELECT seq, sequence,
        max(min(sent_us, recorded_us)) OVER (PARTITION BY source ORDER BY sequence, seq) AS at_us,
        max(seq) OVER (PARTITION BY source ORDER BY sequence, seq) AS place
    FROM events WHERE ledger = :ledger AND seq <= :until AND source IS NOT NULL
    UNION ALL
    SELECT seq, 0, recorded_us, seq
    FROM events WHERE ledger = :ledger AND seq <= :until AND source IS NULL
)
SELECT {_COLUMNS} FROM placed CROSS JOIN events AS e ON e.ledger = :ledger AND e.seq = placed.seq
ORDER BY placed.at_us, placed.place, placed.sequence, placed.seq
"""
"""The senders' order: of one sender by its sequence, across senders by the time that it gave.

A sender's clock may be wrong. Nothing was sent after it was recorded, and nothing before what the same sender sent
before it, so those bounds go before the clock's word. What is not stamped has its place by when it was recorded.
"""

_ORDERS: Final[dict[Order, str]] = {"logged": _LOGGED, "sent": _SENT}


def _differences(
    connection: Connection, ledger: str, until: int, states: dict[str, State], plan: ReplayOptions
) -> Iterator[ChangedPod]:
    """The pods whose content differs and, where lives are known at all, those that are another life."""
    compared = slice(1, None if plan.stamps else -1)
    held = {
        pod.pod_name: PodStanding(
            pod.from_seq, pod.socket_path, scope_text(pod.scope_delegated), pod.parent_pod, pod.incarnation
        )
        for pod in registry.pods_at(connection, ledger, until)
    }
    for name in sorted(held.keys() | states.keys()):
        logged, now = held.get(name), _standing(states.get(name, UNHEARD))
        if (logged and logged[compared]) != (now and now[compared]):
            yield ChangedPod(name, logged, now)


def _standing(state: State) -> PodStanding | None:
    tenure = state.tenure
    if state.status != "open" or tenure is None:
        return None
    return PodStanding(tenure.from_seq, tenure.socket_path, tenure.scope, tenure.parent_pod, tenure.incarnation)
