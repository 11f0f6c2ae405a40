"""Replays: the registry as it would be if the events had come in their senders' order, or without their stamps.

A replay is a pure fold in memory. It writes nothing and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    bindparam,
    case,
    func,
    literal,
    select,
    union_all,
)

from podledger.core.delegations import scope_from, scope_text
from podledger.core.entries import Outcome
from podledger.core.errors import ProtocolError
from podledger.core.progress import Progress, reported
from podledger.core.rules import UNHEARD, Fact, Logged, State, fact_of, fold
from podledger.queries.moments import Moment, resolve
from podledger.queries.registry import pods_at
from podledger.queries.spans import LEDGER
from podledger.store.driver import HotStatement
from podledger.store.expected_rows import logged_columns
from podledger.store.tables import events

Order = Literal["logged", "sent"]


class ReplayOptions(NamedTuple):
    """The plan of a replay: up to which moment, in which order, and whether with the stamps."""

    order: Order = "logged"
    stamps: bool = True
    at: Moment = None


class ChangedOutcome(NamedTuple):
    """An event for which the replay decides another outcome than the ledger did."""

    seq: int
    kind: str
    pod_name: str
    logged: Outcome
    now: Outcome

    def as_json(self) -> dict[str, Any]:
        """Return the changed outcome as `replay --json` prints it."""
        return self._asdict()


class PodContent(NamedTuple):
    """The registry's record of a pod: the content of its open tenure, and the seq of the event that opened it."""

    opened_by: int
    socket_path: str
    scope: str
    parent_pod: str
    incarnation: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the content as `replay --json` prints it."""
        scope = [rule.model_dump() for rule in scope_from(self.scope)]
        return self._asdict() | {"scope": scope}


class ChangedPod(NamedTuple):
    """A pod that the replay leaves with other content than the ledger; None: not in the registry."""

    pod_name: str
    logged: PodContent | None
    now: PodContent | None

    def as_json(self) -> dict[str, Any]:
        """Return the changed pod as `replay --json` prints it."""
        return {
            "pod_name": self.pod_name,
            "logged": self.logged and self.logged.as_json(),
            "now": self.now and self.now.as_json(),
        }


class ReplayResult(NamedTuple):
    """The result of a replay up to a seq: how many outcomes changed, and the pods that differ."""

    until_seq: int
    reversals: int
    pods: tuple[ChangedPod, ...]


def replay(
    connection: Connection,
    ledger: str,
    plan: ReplayOptions,
    on_result: Callable[[ChangedOutcome], None] | None = None,
    progress: Progress | None = None,
) -> ReplayResult:
    """Apply the rules to the log as `plan` says; `on_result` gets each changed outcome, in the plan's order.

    Raises:
        InvalidMomentError: the moment is not in the log.
        ProtocolError: an entry was altered.
    """
    until = resolve(connection, ledger, plan.at)
    states: dict[str, State] = {}
    count = 0
    for fact, logged in reported(_facts(connection, ledger, until, plan), progress, until):
        decision = fold(states.get(fact.pod_name, UNHEARD), fact)
        states[fact.pod_name] = decision.state
        if decision.outcome != logged:
            count += 1
            if on_result:
                on_result(ChangedOutcome(fact.seq, fact.kind, fact.pod_name, logged, decision.outcome))
    return ReplayResult(until, count, tuple(_differences(connection, ledger, until, states, plan)))


def _facts(connection: Connection, ledger: str, until: int, plan: ReplayOptions) -> Iterator[tuple[Fact, Outcome]]:
    for logged in map(Logged._make, _query(plan.order).pages(connection, {"ledger": ledger, "until": until})):
        try:
            fact = fact_of(logged, ledger, repeated=logged.repeated)
        except ProtocolError as error:
            raise ProtocolError(f"entry {logged.seq}: {error.message}", hint=error.hint) from error
        yield fact if plan.stamps else fact._replace(subject=None, repeated=False), logged.outcome


@cache
def _query(order: Order) -> HotStatement:
    query = select(*logged_columns())
    if order == "logged":
        return HotStatement(query.where(*_up_to).order_by(events.c.seq))
    sent = _in_sent_order().cte("sent")
    query = query.join_from(sent, events, (events.c.ledger == LEDGER) & (events.c.seq == sent.c.seq))
    return HotStatement(query.order_by(sent.c.at_us, sent.c.place, sent.c.sequence, sent.c.seq))


_up_to: Final = (events.c.ledger == LEDGER, events.c.seq <= bindparam("until", type_=BigInteger))


def _in_sent_order() -> CompoundSelect[Any]:
    """Return the sort key for the senders' order: of one sender by sequence, across senders by time.

    A sender's clock may be wrong. But no event was sent after it was recorded, or before an earlier event of
    the same sender; these bounds override the clock. An unstamped entry has the place at which it was recorded.
    """
    sent_us = case((events.c.sent_us < events.c.recorded_us, events.c.sent_us), else_=events.c.recorded_us)
    stamped = select(
        events.c.seq,
        events.c.sequence,
        _highest(sent_us).label("at_us"),
        _highest(events.c.seq).label("place"),
    ).where(*_up_to, events.c.source.is_not(None))
    local = select(events.c.seq, literal(0).label("sequence"), events.c.recorded_us, events.c.seq)
    return union_all(stamped, local.where(*_up_to, events.c.source.is_(None)))


def _highest(value: ColumnElement[int]) -> ColumnElement[int]:
    """Return the highest value of a sender up to each of its entries."""
    return func.max(value).over(partition_by=events.c.source, order_by=(events.c.sequence, events.c.seq))


def _differences(
    connection: Connection, ledger: str, until: int, states: dict[str, State], plan: ReplayOptions
) -> Iterator[ChangedPod]:
    """Yield the pods whose content differs, and with stamps also those of another incarnation."""
    compared = slice(1, None if plan.stamps else -1)
    held = {
        pod.pod_name: PodContent(
            pod.from_seq, pod.socket_path, scope_text(pod.scope_delegated), pod.parent_pod, pod.incarnation
        )
        for pod in pods_at(connection, ledger, until)
    }
    for name in sorted(held.keys() | states.keys()):
        logged, now = held.get(name), _content(states.get(name, UNHEARD))
        if (logged and logged[compared]) != (now and now[compared]):
            yield ChangedPod(name, logged, now)


def _content(state: State) -> PodContent | None:
    tenure = state.tenure
    if state.status != "open" or tenure is None:
        return None
    return PodContent(tenure.from_seq, tenure.socket_path, tenure.scope, tenure.parent_pod, tenure.incarnation)
