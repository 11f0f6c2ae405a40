"""The projections as rows: load and save the states of pod names, save tenures and grants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from sys import getsizeof
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, select, update

from podledger.core import strict_json
from podledger.core.delegations import scope_from
from podledger.core.entries import Outcome
from podledger.core.errors import ChainError, DamagedError, ProtocolError
from podledger.core.paths import normalise
from podledger.core.rules import UNHEARD, Decision, Fact, State, Tenure, fold
from podledger.core.text import escape
from podledger.store.driver import HotStatement, held, insert_rows
from podledger.store.sqlite.engines import encode_list, text_list
from podledger.store.tables import grants, pods, span_node, tenures

NAMES_A_QUERY: Final = 500
MAX_CACHED: Final = 50_000
MAX_CACHED_BYTES: Final = 32 << 20
"""How many pod names' states the cache holds, and how many bytes of memory their texts may take."""

MAX_CACHED_SCOPE: Final = 1_000
"""The grants of a scope up to this length, as JSON, are cached."""

TenureKey = tuple[str, int]


@dataclass(slots=True)
class Fold:
    """The rules applied to a run of events: `known` holds the states before it, the rest the changes of the run.

    `changed` holds the tenures that the run opens or changes, by pod name and `from_seq`.
    """

    known: Mapping[str, State]
    states: dict[str, State] = field(default_factory=dict)
    changed: dict[TenureKey, Tenure] = field(default_factory=dict)

    def take(self, fact: Fact, expected: Outcome | None = None) -> Decision:
        """Apply the rules to one event and return the decision.

        Raises:
            ChainError: the outcome is not the `expected` one. The fold stays as it was.
        """
        name = fact.pod_name
        before = self.state(name)
        decision = outcome, after, changed = fold(before, fact)
        if expected is not None and outcome != expected:
            raise ChainError(f"its outcome is {expected!r}, but the rules decide {outcome!r}")
        if after is not before:
            self.states[name] = after
        for tenure in changed:
            self.changed[name, tenure.from_seq] = tenure
        return decision

    def state(self, name: str) -> State:
        """Return the state of a pod name after the events so far."""
        return self.states.get(name) or self.known[name]


class StateCache:
    """Caches the states of the pod names seen last, for one head of the log.

    A batch announces the states that it leaves and the head that it leads to. The next batch finds out whether it was
    committed: if the head is there, the states count; if the head has not moved, they are dropped. Any other head means
    that another process has written, and the cache starts again from the projection.
    """

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._bytes = 0
        self._head: object = None
        self._next_states: Mapping[str, State] = {}
        self._next_head: object = None

    def load(
        self, connection: Connection, ledger: str, names: Iterable[str], head: object = None
    ) -> Mapping[str, State]:
        """Return the states of `names`, and any others in the cache, as they are at `head`."""
        if head == self._next_head:
            self._keep(self._next_states)
        elif head != self._head:
            self._clear()
        self._head, self._next_head, self._next_states = head, head, {}
        wanted = set(names)
        missing = wanted.difference(self._states)
        if len(self._states) + len(missing) > MAX_CACHED or self._bytes > MAX_CACHED_BYTES:
            self._clear()
            missing = wanted
        if missing:
            self._states.update(dict.fromkeys(missing, UNHEARD))
            self._keep(load_states(connection, ledger, sorted(missing)))
        return self._states

    def _keep(self, states: Mapping[str, State]) -> None:
        self._states.update(states)
        self._bytes += sum(map(_text_bytes, states.values()))  # a state that is replaced counts twice

    def _clear(self) -> None:
        self._states.clear()
        self._bytes = 0

    def expect(self, states: Mapping[str, State], head: object = None) -> None:
        """Announce the states that the transaction leaves, and the head that it leads to."""
        self._next_states, self._next_head = states, head


def _text_bytes(state: State) -> int:
    """Return how much memory the long texts of a state take; a wide character takes four bytes for each other one."""
    tenure = state.tenure
    return getsizeof(tenure.scope) + getsizeof(tenure.socket_path) if tenure is not None else 0


def load_states(connection: Connection, ledger: str, names: list[str]) -> dict[str, State]:
    """Read the states of those of `names` that the projection knows.

    Raises:
        DamagedError: a state refers to a tenure that is not there.
    """
    states: dict[str, State] = {}
    for start in range(0, len(names), NAMES_A_QUERY):
        some = names[start : start + NAMES_A_QUERY]
        rows = _STATES.pages(connection, {"ledger": ledger, "names": encode_list(some)})
        for name, newest, status, tenure_from, early_ends, *tenure in rows:
            if tenure_from is not None and tenure[0] is None:
                reason = f"the tenure of '{escape(str(name), 60)}' from seq {tenure_from} is missing in the projections"
                raise DamagedError(reason, hint="run `podledger rebuild`, then `podledger verify`")
            last = Tenure(*tenure) if tenure_from is not None else None
            states[name] = State(newest, last, status, _ends_from(early_ends))
    return states


def _ends_from(text: str | None) -> tuple[str, ...]:
    try:
        return tuple(strict_json.loads(text)) if text else ()
    except (ProtocolError, TypeError) as error:
        raise DamagedError("the state of a pod is damaged", hint="run `podledger rebuild`") from error


_STATES: Final = HotStatement(
    select(
        *(pods.c.pod_name, pods.c.newest, pods.c.status, pods.c.tenure_from, pods.c.early_ends),
        *(tenures.c[field] for field in Tenure._fields),
    )
    .select_from(
        pods.outerjoin(
            tenures,
            (tenures.c.ledger == pods.c.ledger)
            & (tenures.c.pod_name == pods.c.pod_name)
            & (tenures.c.from_seq == pods.c.tenure_from),
        )
    )
    .where(pods.c.ledger == bindparam("ledger"), pods.c.pod_name.in_(text_list("names")))
)


def save(
    connection: Connection,
    ledger: str,
    changed: Mapping[TenureKey, Tenure],
    states: Mapping[str, State],
    head: int,
) -> None:
    """Write the tenures, with their grants, and the states that a batch changes; `head` is the last seq before it."""
    opened = [tenure for tenure in changed.values() if tenure.from_seq > head]
    if opened:
        insert_rows(connection, tenures, sorted([tenure_row(ledger, tenure) for tenure in opened], key=held))
        insert_rows(connection, grants, [row for tenure in opened for row in grant_rows(ledger, tenure)])
    if len(opened) < len(changed):
        kept = [tenure for tenure in changed.values() if tenure.from_seq <= head]
        _UPDATE_TENURE.run_many(connection, [_tenure_change(ledger, tenure) for tenure in kept])
        _UPDATE_GRANTS.run_many(connection, [_grant_end(ledger, tenure) for tenure in kept if tenure.until_seq])
    if states:
        rows = [pod_row(ledger, *item) for item in states.items()]
        insert_rows(connection, pods, sorted(rows, key=held), replaced=_REPLACED)


_REPLACED: Final = ("newest", "status", "tenure_from", "early_ends")
_CHANGING: Final = ("until_seq", "closed_by", "closed_evidence", "confirmed_seq", "confirmed_evidence")
_ENDING: Final = ("until_seq", "node")


def _change(table: Table, columns: Sequence[str]) -> HotStatement:
    """Return the update of some columns in the rows of one tenure."""
    of_tenure = (table.c[key] == bindparam(f"of_{key}") for key in ("ledger", "pod_name", "from_seq"))
    return HotStatement(update(table).where(*of_tenure), columns)


_UPDATE_TENURE: Final = _change(tenures, [*_CHANGING, "node"])
_UPDATE_GRANTS: Final = _change(grants, _ENDING)


def tenure_row(ledger: str, tenure: Tenure) -> tuple[Any, ...]:
    """Return a tenure as a row of its table."""
    return (ledger, *tenure, span_node(tenure.from_seq, tenure.until_seq))


def _tenure_change(ledger: str, tenure: Tenure) -> dict[str, Any]:
    return {field: getattr(tenure, field) for field in _CHANGING} | _grant_end(ledger, tenure)


def grant_rows(ledger: str, tenure: Tenure) -> list[tuple[Any, ...]]:
    """Return the grants of a tenure as rows of their table, in the order of its scope."""
    key = (ledger, tenure.pod_name, tenure.from_seq)
    span = (tenure.until_seq, span_node(tenure.from_seq, tenure.until_seq))
    rules = _cached_grants if len(tenure.scope) <= MAX_CACHED_SCOPE else _grants
    return [(*key, *rule, *span) for rule in rules(tenure.scope)]


def _grants(scope: str) -> list[tuple[int, str, str, str, int]]:
    """Return the columns that a scope alone decides: position, target, normalised path, permission, recursive."""
    return [
        (position, rule.target, normalise(rule.target), rule.permission, int(rule.recursive))
        for position, rule in enumerate(scope_from(scope))
    ]


_cached_grants = lru_cache(maxsize=1024)(_grants)
"""Most pods get the scope that an earlier one had."""


def _grant_end(ledger: str, tenure: Tenure) -> dict[str, Any]:
    node = span_node(tenure.from_seq, tenure.until_seq)
    end = {"until_seq": tenure.until_seq, "node": node}
    return end | {"of_ledger": ledger, "of_pod_name": tenure.pod_name, "of_from_seq": tenure.from_seq}


def pod_row(ledger: str, name: str, state: State) -> tuple[Any, ...]:
    """Return the state of a pod name as a row of its table."""
    early_ends = strict_json.dumps(state.early_ends) if state.early_ends else None
    return (ledger, name, state.newest, state.status, state.tenure.from_seq if state.tenure else None, early_ends)
