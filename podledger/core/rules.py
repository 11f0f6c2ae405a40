"""What the ledger makes of each event: one pure fold, `(state, event) → (state, outcome)`.

It runs as events are appended, when projections are rebuilt, and in replays that ask "what if"; it knows no clock, no
file and no socket. Step one (`hear`) looks at stamped events alone and decides whether they speak of a life that is
over; step two (`_decide`) is a table of status and kind.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from podledger.core.delegations import Delegation, delegation_from
from podledger.core.entries import Entry, Outcome
from podledger.core.errors import ProtocolError
from podledger.core.events import DELEGATIONS, EVIDENCE, Evidence, Kind

VERSION: Final = 1
"""The version of these rules, logged with each outcome."""

PodStatus = Literal["unheard", "heard", "open", "inferred", "ended"]
"""Of a pod name: nothing known; a life named but never delegated; its tenure open; closed by inference; over."""


class Fact(NamedTuple):
    """What the rules look at of an event: its place, what it says, and whose life it speaks of."""

    seq: int
    kind: Kind
    evidence: Evidence
    pod_name: str
    subject: str | None
    source: str | None
    content: Delegation | None


class Logged(NamedTuple):
    """Of an entry of the log what the rules look at, and what they made of it; `payload` counts for delegations."""

    pod_name: str
    seq: int
    kind: Kind
    evidence: Evidence
    subject: str | None
    source: str | None
    payload: str
    outcome: Outcome
    rules: int


def fact_of(entry: Entry | Logged, owner: str) -> Fact:
    """What the rules look at of an entry of the ledger `owner`, which may have been altered.

    Raises:
        ProtocolError: its kind is none, or its payload is not what its kind says.
    """
    kind = entry.kind
    if kind not in EVIDENCE:
        raise ProtocolError(f"{kind!r} is no kind of event")
    content = delegation_from(kind, entry.payload, owner) if kind in DELEGATIONS else None
    return Fact(entry.seq, kind, entry.evidence, entry.pod_name, entry.subject, entry.source, content)


class Tenure(NamedTuple):
    """The span of the log in which one incarnation stands in the registry: `from_seq` to before `until_seq`.

    `incarnation` is known from `named_seq` on. `source` is the incarnation that delegated it, where the delegation was
    stamped. `closed_by` is the kind of event that closed it, or `superseded`; an end that was inferred and then
    reported bears `confirmed_seq`.
    """

    pod_name: str
    from_seq: int
    opened_evidence: Evidence
    incarnation: str | None
    named_seq: int | None
    source: str | None
    socket_path: str
    scope: str
    parent_pod: str
    callback_address: str | None
    until_seq: int | None = None
    closed_by: str | None = None
    closed_evidence: Evidence | None = None
    confirmed_seq: int | None = None
    confirmed_evidence: Evidence | None = None

    def states(self, content: Delegation) -> bool:
        """Whether a delegation of `content` is the one that opened this tenure: same socket, scope and parent."""
        return (self.socket_path, self.scope, self.parent_pod) == content[:3]


class State(NamedTuple):
    """What the rules know of one pod name: the newest incarnation heard of, the last tenure, and the status.

    The last tenure is forgotten when a newer incarnation is heard of that it cannot be; so a tenure without an
    incarnation, beside a `newest`, was opened by an unstamped delegation since.
    """

    newest: str | None
    tenure: Tenure | None
    status: PodStatus


UNHEARD: Final = State(None, None, "unheard")


class Decision(NamedTuple):
    """What an event did: the outcome, the new state, and the tenures that it opened or changed, in order."""

    outcome: Outcome
    state: State
    changed: tuple[Tenure, ...] = ()


def fold(state: State, fact: Fact) -> Decision:
    """Take one event into the state of the pod name that it is about."""
    if fact.subject is None:
        return _decide(state, fact)
    heard = hear(state, fact, fact.subject)
    if heard.outcome == "late":
        return heard
    decision = _decide(heard.state, fact)
    return decision._replace(changed=_merged(heard.changed, decision.changed)) if heard.changed else decision


def may_change(status: PodStatus, kind: Kind) -> bool:
    """Whether an unstamped event of a kind changes a pod of that status; if not, all it leaves is an outcome."""
    return status in _CHANGED_BY.get(kind, _ANY)


_ANY: Final[frozenset[PodStatus]] = frozenset({"unheard", "heard", "open", "inferred", "ended"})
_ENDINGS: Final[frozenset[PodStatus]] = frozenset({"open", "inferred"})
_OPENINGS: Final[frozenset[PodStatus]] = _ANY - {"open"}
_CHANGED_BY: Final[dict[Kind, frozenset[PodStatus]]] = {
    "turn_ended": frozenset({"inferred"}),
    "errored": frozenset({"inferred"}),
    "shut_down": _ENDINGS,
    "pod_exited": _ENDINGS,
    "scope_sub_delegated": _OPENINGS,
    "pod_spawned": _OPENINGS,
    "pod_unreachable": frozenset(),
    "pod_reclaimed": frozenset({"open"}),
}


def hear(state: State, fact: Fact, subject: str) -> Decision:
    """Step one: compare the life that a stamped event speaks of with the newest one heard of."""
    newest, tenure, status = state
    if newest is not None and subject <= newest:
        replaced = tenure is not None and tenure.incarnation is None
        return Decision("late" if subject < newest or replaced else "noted", state)
    if tenure is not None and tenure.incarnation is None and _is_this_life(tenure, status, fact):
        named = tenure._replace(incarnation=subject, named_seq=fact.seq)
        return Decision("noted", State(subject, named, status), (named,))
    if tenure is not None and status == "open":
        superseded = tenure._replace(until_seq=fact.seq, closed_by="superseded", closed_evidence=fact.evidence)
        return Decision("noted", State(subject, None, "heard"), (superseded,))
    return Decision("noted", State(subject, None, "heard"))


def _is_this_life(tenure: Tenure, status: PodStatus, fact: Fact) -> bool:
    if fact.content is not None:
        return status == "open" and tenure.states(fact.content)
    return status in ("open", "inferred")


def _decide(state: State, fact: Fact) -> Decision:
    """Step two: the table of status and kind."""
    match fact.kind:
        case "turn_ended" | "errored":
            return _on_activity(state, fact)
        case "shut_down" | "pod_exited":
            return _on_ending(state, fact)
        case "scope_sub_delegated" | "pod_spawned":
            return _on_delegation(state, fact)
        case "pod_unreachable":
            return Decision("noted" if state.status == "open" else "ignored", state)
        case "pod_reclaimed":
            return _on_reclaim(state, fact)


def _on_activity(state: State, fact: Fact) -> Decision:
    newest, tenure, status = state
    match status:
        case "open":
            return Decision("noted", state)
        case "ended":
            return Decision("late", state)
        case "inferred" if tenure is not None:
            revived = _reopened(tenure, fact)
            return Decision("revived", State(newest, revived, "open"), (revived,))
        case _:
            return Decision("unknown", state)


def _on_ending(state: State, fact: Fact) -> Decision:
    newest, tenure, status = state
    match status:
        case "open" if tenure is not None:
            return _closed(newest, tenure, fact, "ended")
        case "inferred" if tenure is not None:
            confirmed = tenure._replace(confirmed_seq=fact.seq, confirmed_evidence=fact.evidence)
            return Decision("confirmed", State(newest, confirmed, "ended"), (confirmed,))
        case "ended":
            return Decision("duplicate", state)
        case _:
            return Decision("unknown", state._replace(status="ended") if fact.subject else state)


def _on_delegation(state: State, fact: Fact) -> Decision:
    newest, tenure, status = state
    assert fact.content is not None  # noqa: S101 - whoever makes the fact of a delegation gives its content
    if status == "open" and tenure is not None:
        return Decision("duplicate" if tenure.states(fact.content) else "conflict", state)
    if fact.subject is not None and status in ("inferred", "ended"):
        return Decision("late", state)
    opened = _opened(fact, fact.content)
    return Decision("applied", State(newest, opened, "open"), (opened,))


def _on_reclaim(state: State, fact: Fact) -> Decision:
    if state.status != "open" or state.tenure is None:
        return Decision("ignored", state)
    return _closed(state.newest, state.tenure, fact, "inferred")


def _closed(newest: str | None, tenure: Tenure, fact: Fact, status: PodStatus) -> Decision:
    closed = tenure._replace(until_seq=fact.seq, closed_by=fact.kind, closed_evidence=fact.evidence)
    return Decision("applied", State(newest, closed, status), (closed,))


def _opened(fact: Fact, content: Delegation) -> Tenure:
    return Tenure(
        pod_name=fact.pod_name,
        from_seq=fact.seq,
        opened_evidence=fact.evidence,
        incarnation=fact.subject,
        named_seq=fact.seq if fact.subject else None,
        source=fact.source if fact.subject else None,
        socket_path=content.socket_path,
        scope=content.scope,
        parent_pod=content.parent_pod,
        callback_address=content.callback_address,
    )


def _reopened(tenure: Tenure, fact: Fact) -> Tenure:
    """The same life and content once more, from this event on."""
    return tenure._replace(
        from_seq=fact.seq,
        opened_evidence=fact.evidence,
        named_seq=fact.seq if tenure.incarnation else None,
        until_seq=None,
        closed_by=None,
        closed_evidence=None,
        confirmed_seq=None,
        confirmed_evidence=None,
    )


def _merged(heard: tuple[Tenure, ...], decided: tuple[Tenure, ...]) -> tuple[Tenure, ...]:
    """The tenures that both steps changed, each once, as it is after the second."""
    return tuple({(tenure.pod_name, tenure.from_seq): tenure for tenure in (*heard, *decided)}.values())
