"""The projections as rows: what the rules know of each pod name, loaded and saved; tenures and grants, saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection

from podledger.core.delegations import scope_from
from podledger.core.errors import DamagedError
from podledger.core.paths import normalise
from podledger.core.rules import UNHEARD, Decision, Fact, State, Tenure, fold
from podledger.core.text import escape
from podledger.store.driver import execute_many, fetch, held, insert_rows
from podledger.store.tables import grants, pods, span_node, tenures

NAMES_A_QUERY: Final = 500
MAX_CACHED: Final = 50_000
"""How many pod names' states are kept in memory."""

MAX_CACHED_SCOPE: Final = 1_000
"""The longest scope, as JSON, of which the grants are kept in memory."""

TenureKey = tuple[str, int]


class Fold:
    """The rules at work on a run of events: what is known before it, and the states and tenures that it changes."""

    def __init__(self, known: Mapping[str, State]) -> None:
        self._known = known
        self.states: dict[str, State] = {}
        self.changed: dict[TenureKey, Tenure] = {}

    def take(self, fact: Fact) -> Decision:
        """Fold one event."""
        decision = self.weigh(fact)
        self.keep(fact.pod_name, decision)
        return decision

    def weigh(self, fact: Fact) -> Decision:
        """What the rules would make of an event, without folding it."""
        return fold(self._state(fact.pod_name), fact)

    def keep(self, pod_name: str, decision: Decision) -> None:
        """Take in what `weigh` said."""
        if decision.state is not self._state(pod_name):
            self.states[pod_name] = decision.state
        for tenure in decision.changed:
            self.changed[pod_name, tenure.from_seq] = tenure

    def _state(self, pod_name: str) -> State:
        return self.states.get(pod_name) or self._known[pod_name]


class StateCache:
    """The states of pod names last seen, bounded; right as long as the ledger's head is where it left it."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._at: object = None

    def at(self, position: object) -> None:
        """Say where the head is: what is cached for another position is dropped."""
        if position != self._at:
            self._states.clear()
            self._at = position

    def load(self, connection: Connection, ledger: str, names: Iterable[str]) -> Mapping[str, State]:
        """The states of `names`, and of whatever else is cached."""
        wanted = set(names)
        missing = wanted.difference(self._states)
        if len(self._states) + len(missing) > MAX_CACHED:
            self._states.clear()
            missing = wanted
        if missing:
            self._states.update(dict.fromkeys(missing, UNHEARD))
            self._states.update(load_states(connection, ledger, sorted(missing)))
        return self._states

    def advance(self, states: Mapping[str, State], position: object) -> None:
        """Take in what a committed batch left, and where its head is."""
        self._states.update(states)
        self._at = position


def load_states(connection: Connection, ledger: str, names: list[str]) -> dict[str, State]:
    """The states that the projection holds for those of `names` that were heard of."""
    states: dict[str, State] = {}
    for start in range(0, len(names), NAMES_A_QUERY):
        some = names[start : start + NAMES_A_QUERY]
        query = _STATES.format(marks=", ".join("?" * len(some)))
        for name, newest, status, tenure_from, *tenure in fetch(connection, query, (ledger, *some)):
            if tenure_from is not None and tenure[0] is None:
                reason = f"the tenure of '{escape(str(name), 60)}' from seq {tenure_from} is gone from the projections"
                raise DamagedError(reason, hint="run `podledger rebuild`, then `podledger verify`")
            states[name] = State(newest, Tenure(*tenure) if tenure_from is not None else None, status)
    return states


_STATES: Final = (
    f"SELECT pods.pod_name, newest, status, tenure_from, {', '.join(f'tenures.{field}' for field in Tenure._fields)} "
    "FROM pods LEFT JOIN tenures ON tenures.ledger = pods.ledger AND tenures.pod_name = pods.pod_name "
    "AND tenures.from_seq = pods.tenure_from WHERE pods.ledger = ? AND pods.pod_name IN ({marks})"
)


def save(
    connection: Connection,
    ledger: str,
    changed: Mapping[TenureKey, Tenure],
    states: Mapping[str, State],
    head: int,
) -> None:
    """Write the tenures, with their grants, and the states that a batch after seq `head` left."""
    opened = [tenure for tenure in changed.values() if tenure.from_seq > head]
    kept = [tenure for tenure in changed.values() if tenure.from_seq <= head]
    insert_rows(connection, tenures, sorted([tenure_row(ledger, tenure) for tenure in opened], key=held))
    lent = [row for tenure in opened for row in grant_rows(ledger, tenure)]
    insert_rows(connection, grants, lent, lambda _: _ALL_OF_A_GRANT)
    execute_many(connection, _UPDATE_TENURE, [_tenure_change(ledger, tenure) for tenure in kept])
    execute_many(connection, _UPDATE_GRANTS, [_grant_end(ledger, tenure) for tenure in kept if tenure.until_seq])
    stated = [pod_row(ledger, *item) for item in states.items()]
    insert_rows(connection, pods, sorted(stated, key=held), otherwise=_REPLACE_STATE)


_CHANGING: Final = (
    "incarnation",
    "named_seq",
    "until_seq",
    "closed_by",
    "closed_evidence",
    "confirmed_seq",
    "confirmed_evidence",
)
_ALL_OF_A_GRANT: Final = tuple(range(len(grants.columns)))
_UPDATE_TENURE: Final = (
    f"UPDATE tenures SET {', '.join(f'{field} = ?' for field in _CHANGING)}, node = ? "
    "WHERE ledger = ? AND pod_name = ? AND from_seq = ?"
)
_UPDATE_GRANTS: Final = "UPDATE grants SET until_seq = ?, node = ? WHERE ledger = ? AND pod_name = ? AND from_seq = ?"
_REPLACE_STATE: Final = (
    " ON CONFLICT (ledger, pod_name) DO UPDATE SET "
    "newest = excluded.newest, status = excluded.status, tenure_from = excluded.tenure_from"
)


def tenure_row(ledger: str, tenure: Tenure) -> tuple[Any, ...]:
    """A tenure as its table has it."""
    return (ledger, *tenure, span_node(tenure.from_seq, tenure.until_seq))


def _tenure_change(ledger: str, tenure: Tenure) -> tuple[Any, ...]:
    values = (getattr(tenure, field) for field in _CHANGING)
    node = span_node(tenure.from_seq, tenure.until_seq)
    return (*values, node, ledger, tenure.pod_name, tenure.from_seq)


def grant_rows(ledger: str, tenure: Tenure) -> list[tuple[Any, ...]]:
    """The grants of a tenure as their table has them, in the order of its scope."""
    key = (ledger, tenure.pod_name, tenure.from_seq)
    span = (tenure.until_seq, span_node(tenure.from_seq, tenure.until_seq))
    lent = _lent_often if len(tenure.scope) <= MAX_CACHED_SCOPE else _lent
    return [(*key, *each, *span) for each in lent(tenure.scope)]


def _lent(scope: str) -> list[tuple[int, str, str, str, int]]:
    """What a scope, which lives of a pod have in common, states of each grant: its position, and what it is of."""
    return [
        (position, rule.target, normalise(rule.target), rule.permission, int(rule.recursive))
        for position, rule in enumerate(scope_from(scope))
    ]


_lent_often = lru_cache(maxsize=1024)(_lent)


def _grant_end(ledger: str, tenure: Tenure) -> tuple[Any, ...]:
    node = span_node(tenure.from_seq, tenure.until_seq)
    return (tenure.until_seq, node, ledger, tenure.pod_name, tenure.from_seq)


def pod_row(ledger: str, name: str, state: State) -> tuple[Any, ...]:
    """What is known of a pod name as its table has it."""
    return (ledger, name, state.newest, state.status, state.tenure.from_seq if state.tenure else None)
