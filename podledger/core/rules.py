"""The rules: one pure function, `(state, event) → (state, outcome)`. `docs/rules.md` explains them.

It runs when events are appended, when projections are rebuilt and in replays. Step one (`hear`) applies to events with
a subject and decides which incarnation they are about. Step two (`_decide`) is a table of status and kind.
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
"""The status of a pod name.

`unheard`: nothing is known. `heard`: an incarnation was named, but not delegated. `open`: it has an open tenure.
`inferred`: its tenure was closed by inference. `ended`: its end was reported or observed.
"""


class Fact(NamedTuple):
    """What the rules read from an event: its seq, its content, and the incarnation that it is about."""

    seq: int
    kind: Kind
    evidence: Evidence
    pod_name: str
    subject: str | None
    source: str | None
    content: Delegation | None


class Logged(NamedTuple):
    """What the rules read from an entry of the log, and what they decided; `payload` matters only for delegations."""

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
    """Return what the rules read from an entry of the ledger `owner`.

    Raises:
        ProtocolError: the entry was altered: its kind is unknown, or its payload does not match its kind.
    """
    kind = entry.kind
    if kind not in EVIDENCE:
        raise ProtocolError(f"{kind!r} is not a kind of event")
    content = delegation_from(kind, entry.payload, owner) if kind in DELEGATIONS else None
    return Fact(entry.seq, kind, entry.evidence, entry.pod_name, entry.subject, entry.source, content)


class Tenure(NamedTuple):
    """The span of the log in which an incarnation is in the registry: from `from_seq` to before `until_seq`.

    Attributes:
        incarnation: None until an event names it, which `named_seq` records.
        source: The incarnation that sent the delegation, if the delegation was stamped.
        closed_by: The kind of the event that closed the tenure, or `superseded`.
        confirmed_seq: The report or observation of an end that had been inferred.
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
        """Return whether `content` has the socket, scope and parent of this tenure."""
        return (self.socket_path, self.scope, self.parent_pod) == content[:3]


class State(NamedTuple):
    """What the rules know of one pod name: the newest incarnation named, the last tenure and the status.

    If a newer incarnation is named, and the last tenure cannot be its tenure, the tenure is dropped. So if `newest` is
    set and the tenure has no incarnation, an unstamped delegation opened the tenure later.
    """

    newest: str | None
    tenure: Tenure | None
    status: PodStatus


UNHEARD: Final = State(None, None, "unheard")


class Decision(NamedTuple):
    """What an event did: the outcome, the new state and, in order, the tenures that it opened or changed."""

    outcome: Outcome
    state: State
    changed: tuple[Tenure, ...] = ()


def fold(state: State, fact: Fact) -> Decision:
    """Apply one event to the state of the pod name that it is about."""
    if fact.subject is None:
        return _decide(state, fact)
    heard = hear(state, fact, fact.subject)
    if heard.outcome == "late":
        return heard
    decision = _decide(heard.state, fact)
    return decision._replace(changed=_merged(heard.changed, decision.changed)) if heard.changed else decision


def may_change(status: PodStatus, kind: Kind) -> bool:
    """Return whether an unstamped event of `kind` changes a pod with `status`, or only gets an outcome."""
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
    """Step one: compare `subject`, the incarnation that the event is about, with the newest one named so far."""
    newest, tenure, status = state
    if newest is not None and subject <= newest:
        replaced = tenure is not None and tenure.incarnation is None
        return Decision("late" if subject < newest or replaced else "noted", state)
    if tenure is not None and tenure.incarnation is None and _may_be_subject(tenure, status, fact):
        named = tenure._replace(incarnation=subject, named_seq=fact.seq)
        return Decision("noted", State(subject, named, status), (named,))
    if tenure is not None and status == "open":
        superseded = tenure._replace(until_seq=fact.seq, closed_by="superseded", closed_evidence=fact.evidence)
        return Decision("noted", State(subject, None, "heard"), (superseded,))
    return Decision("noted", State(subject, None, "heard"))


def _may_be_subject(tenure: Tenure, status: PodStatus, fact: Fact) -> bool:
    if fact.content is not None:
        return status == "open" and tenure.states(fact.content)
    return status in ("open", "inferred")


def _decide(state: State, fact: Fact) -> Decision:
    """Step two: decide by status and kind."""
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
    assert fact.content is not None  # noqa: S101 - the fact of a delegation always has its content
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
    """Return a new tenure of the same incarnation and content that starts at this event."""
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
    """Return the tenures that the two steps changed, each once, as the second step left it."""
    return tuple({(tenure.pod_name, tenure.from_seq): tenure for tenure in (*heard, *decided)}.values())
