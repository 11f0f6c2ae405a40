"""The rules: the effect of each event, as one pure fold, `(state, event) → (state, outcome)`.

The fold runs when an event is appended, when projections are rebuilt, and in replays that ask "what if". It knows no
clock, no file and no socket. `docs/rules.md` states the rules in full:

- step zero, repetition: an event that repeats an earlier one is a `duplicate`;
- step one, incarnation (`_by_incarnation`): only a delegation introduces an incarnation;
- step two, status (`_by_status`): a table of status and kind.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from podledger.core.delegations import Delegation, delegation_from
from podledger.core.entries import Entry, Outcome
from podledger.core.errors import ProtocolError
from podledger.core.events import DELEGATIONS, EVIDENCE, Evidence, Kind
from podledger.core.relays import RelayedKind

VERSION: Final = 2
"""The version of these rules, logged with each outcome."""

MAX_EARLY_ENDS: Final = 16
"""How many incarnations are remembered whose end was reported before their delegation: the newest ones."""

PodStatus = Literal["unheard", "open", "inferred", "ended"]
"""The status of a pod name: never delegated; tenure open; tenure closed by inference; over."""


class Fact(NamedTuple):
    """The part of an event that the rules read.

    `kind` and `evidence` are those of the event as it happened: for a relayed end, the relayed ones. `repeated` says
    that the event repeats an earlier entry. `delegation` is None unless the kind is a delegation.
    """

    seq: int
    kind: Kind
    evidence: Evidence
    pod_name: str
    subject: str | None
    delegation: Delegation | None
    repeated: bool = False


class Logged(NamedTuple):
    """The part of an entry of the log that the rules read, and their outcome; `payload` only of delegations."""

    pod_name: str
    seq: int
    kind: Kind
    evidence: Evidence
    subject: str | None
    speaker: str | None
    relayed_kind: RelayedKind | None
    repeated: bool
    payload: str
    outcome: Outcome
    rules: int


def fact_of(entry: Entry | Logged, owner: str, *, repeated: bool = False) -> Fact:
    """Return the part of an entry of the ledger `owner` that the rules read.

    Raises:
        ProtocolError: the entry was altered: its kind is unknown, or its payload does not match its kind.
    """
    kind = entry.kind
    if kind not in EVIDENCE:
        raise ProtocolError(f"{kind!r} is not a kind of event")
    delegation = delegation_from(kind, entry.payload, owner, entry.speaker) if kind in DELEGATIONS else None
    judged = kind_judged(kind, entry.relayed_kind)
    return Fact(entry.seq, judged, entry.evidence, entry.pod_name, entry.subject, delegation, repeated)


def kind_judged(kind: Kind, relayed_kind: RelayedKind | None) -> Kind:
    """Return the kind that the rules apply to an entry: for a relayed end, its kind in the owner's ledger."""
    if kind == "shut_down" and relayed_kind in ("pod_exited", "pod_reclaimed"):
        return relayed_kind
    return kind


class Tenure(NamedTuple):
    """The span of the log in which one incarnation is in the registry: `from_seq` up to, not including, `until_seq`.

    A tenure without an `incarnation` is unnamed, and stays so. `delegated_by` names the pod that delegated it and
    `speaker` that pod's incarnation, where known. `closed_by` is the kind of event that closed it, or `superseded`; an
    end that was inferred and reported later has a `confirmed_seq`. `pid` and `start` identify the pod's process, if
    the owner stated it.
    """

    pod_name: str
    from_seq: int
    opened_evidence: Evidence
    incarnation: str | None
    speaker: str | None
    delegated_by: str
    socket_path: str
    scope: str
    parent_pod: str
    callback_address: str | None
    pid: int | None = None
    start: str | None = None
    until_seq: int | None = None
    closed_by: str | None = None
    closed_evidence: Evidence | None = None
    confirmed_seq: int | None = None
    confirmed_evidence: Evidence | None = None

    def matches(self, delegation: Delegation) -> bool:
        """Return whether a delegation has the socket, the scope and the parent of this tenure."""
        return (self.socket_path, self.scope, self.parent_pod) == delegation[:3]

    @property
    def spawned_by_owner(self) -> bool:
        """Return whether the owner itself spawned the pod: only then is the callback address stated."""
        return self.callback_address is not None


class State(NamedTuple):
    """The rules' knowledge of one pod name.

    `newest` is the newest incarnation that was delegated, `tenure` the last tenure. `early_ends` holds incarnations
    newer than `newest` whose end was reported before their delegation, oldest first. A `tenure` without an incarnation
    next to a `newest` was opened since, by a delegation without a subject.
    """

    newest: str | None
    tenure: Tenure | None
    status: PodStatus
    early_ends: tuple[str, ...] = ()


UNHEARD: Final = State(None, None, "unheard")

ENDS: Final = frozenset({"shut_down", "pod_exited"})
"""The kinds that state the end of an incarnation."""


class Decision(NamedTuple):
    """The result of an event: its outcome, the new state, and the tenures that it opened or changed, in order."""

    outcome: Outcome
    state: State
    changed: tuple[Tenure, ...] = ()


def fold(state: State, fact: Fact) -> Decision:
    """Fold one event into the state of its pod name."""
    if fact.repeated:
        return Decision("duplicate", state)
    if fact.subject is None:
        return _by_status(state, fact)
    return _by_incarnation(state, fact, fact.subject)


def may_change(state: State, kind: Kind, subject: str | None) -> bool:
    """Return whether an event can change the state; if not, it leaves nothing but its outcome."""
    if subject is not None and (kind in ENDS or kind == "pod_reclaimed" or kind in DELEGATIONS):
        return True
    return state.status in _CHANGED_BY[kind]


_OPENED_FROM: Final[frozenset[PodStatus]] = frozenset({"unheard", "inferred", "ended"})
_CHANGED_BY: Final[dict[Kind, frozenset[PodStatus]]] = {
    "turn_ended": frozenset({"inferred"}),
    "errored": frozenset({"inferred"}),
    "shut_down": frozenset({"open", "inferred"}),
    "pod_exited": frozenset({"open", "inferred"}),
    "scope_sub_delegated": _OPENED_FROM,
    "pod_spawned": _OPENED_FROM,
    "pod_unreachable": frozenset(),
    "pod_reclaimed": frozenset({"open"}),
}


def _by_incarnation(state: State, fact: Fact, subject: str) -> Decision:
    """Step one: compare the subject with the newest delegated incarnation."""
    if fact.kind == "pod_spawned":
        return _on_spawn(state, fact, subject)
    if state.newest is None or subject > state.newest:
        newer = _on_new_delegation if fact.kind in DELEGATIONS else _on_new_report
        return newer(state, fact, subject)
    replaced = state.tenure is not None and state.tenure.incarnation is None
    if subject < state.newest or replaced:
        return Decision("late", state)
    return _by_status(state, fact)


def _on_spawn(state: State, fact: Fact, subject: str) -> Decision:
    """The owner saw the spawn itself, so no claim about incarnations can contradict it."""
    if state.tenure is not None and state.tenure.incarnation == subject:
        return _by_status(state, fact)
    return _open_newest(state, fact, subject)


def _on_new_report(state: State, fact: Fact, subject: str) -> Decision:
    """A report of an incarnation that no event delegated yet can concern an unnamed tenure, and no other."""
    if state.tenure is not None and state.tenure.incarnation is None and state.status in ("open", "inferred"):
        return _by_status(state, fact)
    is_end = fact.kind in ENDS or (fact.kind == "pod_reclaimed" and fact.evidence == "reported")  # a relayed reclaim
    if not is_end or subject in state.early_ends:
        return Decision("unknown", state)
    early_ends = tuple(sorted((*state.early_ends, subject))[-MAX_EARLY_ENDS:])
    return Decision("unknown", state._replace(early_ends=early_ends))


def _on_new_delegation(state: State, fact: Fact, subject: str) -> Decision:
    """A delegation from the wire introduces its subject, unless the owner's own observation contradicts it."""
    tenure = state.tenure
    if state.status == "open" and tenure is not None:
        if tenure.incarnation is None and tenure.matches(_delegation_of(fact)):
            return Decision("duplicate", state)
        if tenure.spawned_by_owner:
            return Decision("conflict", state)
    if subject not in state.early_ends:
        return _open_newest(state, fact, subject)
    over = State(subject, None, "ended", _later(state.early_ends, subject))
    return Decision("late", over, _superseded(state, fact))


def _open_newest(state: State, fact: Fact, subject: str) -> Decision:
    opened = _opened(fact)
    after = State(subject, opened, "open", _later(state.early_ends, subject))
    return Decision("applied", after, (*_superseded(state, fact), opened))


def _later(ends: tuple[str, ...], subject: str) -> tuple[str, ...]:
    return tuple(end for end in ends if end > subject)


def _superseded(state: State, fact: Fact) -> tuple[Tenure, ...]:
    """Return the open tenure, closed as superseded, if there is one."""
    if state.status != "open" or state.tenure is None:
        return ()
    return (state.tenure._replace(until_seq=fact.seq, closed_by="superseded", closed_evidence=fact.evidence),)


def _by_status(state: State, fact: Fact) -> Decision:
    """Step two: the table of status and kind."""
    match fact.kind:
        case "turn_ended" | "errored":
            return _on_activity(state, fact)
        case "shut_down" | "pod_exited":
            return _on_end(state, fact)
        case "scope_sub_delegated" | "pod_spawned":
            return _on_delegation(state, fact)
        case "pod_unreachable":
            return Decision("noted" if state.status == "open" else "ignored", state)
        case "pod_reclaimed":
            return _on_reclaim(state, fact)


def _on_activity(state: State, fact: Fact) -> Decision:
    match state.status:
        case "open":
            return Decision("noted", state)
        case "ended":
            return Decision("late", state)
        case "inferred" if state.tenure is not None:
            revived = _reopened(state.tenure, fact)
            return Decision("revived", state._replace(tenure=revived, status="open"), (revived,))
        case _:
            return Decision("unknown", state)


def _on_end(state: State, fact: Fact) -> Decision:
    tenure = state.tenure
    match state.status:
        case "open" if tenure is not None:
            return _closed(state, tenure, fact, "ended")
        case "inferred" if tenure is not None:
            confirmed = tenure._replace(confirmed_seq=fact.seq, confirmed_evidence=fact.evidence)
            return Decision("confirmed", state._replace(tenure=confirmed, status="ended"), (confirmed,))
        case "ended":
            return Decision("duplicate", state)
        case _:
            return Decision("unknown", state)


def _on_delegation(state: State, fact: Fact) -> Decision:
    if state.status == "open" and state.tenure is not None:
        return Decision("duplicate" if state.tenure.matches(_delegation_of(fact)) else "conflict", state)
    if fact.subject is not None and state.status in ("inferred", "ended"):
        return Decision("late", state)
    opened = _opened(fact)
    return Decision("applied", state._replace(tenure=opened, status="open"), (opened,))


def _on_reclaim(state: State, fact: Fact) -> Decision:
    if state.status != "open" or state.tenure is None:
        return Decision("ignored", state)
    return _closed(state, state.tenure, fact, "inferred")


def _closed(state: State, tenure: Tenure, fact: Fact, status: PodStatus) -> Decision:
    closed = tenure._replace(until_seq=fact.seq, closed_by=fact.kind, closed_evidence=fact.evidence)
    return Decision("applied", state._replace(tenure=closed, status=status), (closed,))


def _delegation_of(fact: Fact) -> Delegation:
    assert fact.delegation is not None  # noqa: S101 - the fact of a delegation always carries it
    return fact.delegation


def _opened(fact: Fact) -> Tenure:
    delegation = _delegation_of(fact)
    return Tenure(
        pod_name=fact.pod_name,
        from_seq=fact.seq,
        opened_evidence=fact.evidence,
        incarnation=fact.subject,
        speaker=delegation.speaker,
        delegated_by=delegation.delegated_by,
        socket_path=delegation.socket_path,
        scope=delegation.scope,
        parent_pod=delegation.parent_pod,
        callback_address=delegation.callback_address,
        pid=delegation.pid,
        start=delegation.start,
    )


def _reopened(tenure: Tenure, fact: Fact) -> Tenure:
    """Return a tenure of the same incarnation and delegation that opens with this event."""
    return tenure._replace(
        from_seq=fact.seq,
        opened_evidence=fact.evidence,
        until_seq=None,
        closed_by=None,
        closed_evidence=None,
        confirmed_seq=None,
        confirmed_evidence=None,
    )
