"""An independent model of the rules and queries, and of the original runtime's registry.

It follows `docs/rules.md` and `docs/protocol.md`, not podledger's code: a list of events, a list of tenures, a
dictionary of names, and a linear scan for each query. A query about the past folds the log again up to that moment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from podledger.core.events import Errored, LedgerEvent, PodSpawned, ScopeSubDelegated, ShutDown, TurnEnded
from podledger.core.fields import ScopeRule

Row = dict[str, Any]
Delegation = tuple[str, tuple[ScopeRule, ...], str]

EVIDENCE = {
    "turn_ended": "reported",
    "errored": "reported",
    "shut_down": "reported",
    "scope_sub_delegated": "reported",
    "pod_spawned": "observed",
    "pod_exited": "observed",
    "pod_unreachable": "inferred",
    "pod_reclaimed": "inferred",
}


@dataclass
class Span:
    """A tenure: from the event `opened` up to, not including, the event `closed`."""

    name: str
    opened: int
    evidence: str
    content: Delegation
    stated_callback: str | None
    incarnation: str | None
    speaker: str | None
    observed: bool
    closed: int | None = None
    closed_by: str | None = None
    end_evidence: str | None = None


@dataclass
class Name:
    """The state of a pod name; `overtaken`: an unstamped delegation opened a tenure after `newest` was delegated."""

    newest: str | None = None
    last: Span | None = None
    status: str = "unheard"
    overtaken: bool = False
    ends: set[str] = field(default_factory=set)


@dataclass
class Model:
    """The ledger of the pod `owner`."""

    owner: str = "root"
    log: list[LedgerEvent] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    names: dict[str, Name] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[LedgerEvent], owner: str = "root") -> Model:
        """Return the model after `events`."""
        model = cls(owner)
        for event in events:
            model.take(event)
        return model

    def at(self, seq: int) -> Model:
        """Return the model as it was after the event `seq`."""
        return Model.of(self.log[:seq], self.owner)

    # The rules

    def take(self, event: LedgerEvent) -> str:
        """Append an event; return the outcome."""
        self.log.append(event)
        outcome = "duplicate" if self._is_repetition(event) else self._judge(event)
        self.outcomes.append(outcome)
        return outcome

    def _is_repetition(self, event: LedgerEvent) -> bool:
        triple = triple_of(event)
        return triple is not None and any(triple_of(other) == triple for other in self.log[:-1])

    def _judge(self, event: LedgerEvent) -> str:
        name = self.names.setdefault(event.about, Name())
        subject = subject_of(event)
        if subject is None:
            return self._step_two(event, name)
        if isinstance(event, PodSpawned):
            same = name.last is not None and name.last.incarnation == subject
            return self._step_two(event, name) if same else self._replace(event, name, subject)
        if name.newest is None or subject > name.newest:
            return self._newer(event, name, subject)
        if subject < name.newest or name.overtaken:
            return "late"
        return self._step_two(event, name)

    def _newer(self, event: LedgerEvent, name: Name, subject: str) -> str:
        """Step one, last row: the subject is newer than every delegated incarnation, or the first."""
        unnamed = name.last is not None and name.last.incarnation is None
        if not is_delegation(event):
            if unnamed and name.status in ("open", "inferred"):
                return self._step_two(event, name)
            if event.kind in ("shut_down", "pod_exited"):
                name.ends = set(sorted(name.ends | {subject})[-16:])
            return "unknown"
        if name.status == "open" and name.last is not None:
            if unnamed and name.last.content == self._content(event):
                return "duplicate"
            if name.last.observed:
                return "conflict"
        if subject in name.ends:
            self._supersede(event, name, subject)
            name.last, name.status = None, "ended"
            return "late"
        return self._replace(event, name, subject)

    def _replace(self, event: LedgerEvent, name: Name, subject: str) -> str:
        self._supersede(event, name, subject)
        self._open_by(event, name)
        return "applied"

    def _supersede(self, event: LedgerEvent, name: Name, subject: str) -> None:
        if name.status == "open":
            self._close(name, "superseded", event)
        name.newest, name.overtaken = subject, False
        name.ends = {end for end in name.ends if end > subject}

    def _step_two(self, event: LedgerEvent, name: Name) -> str:
        """Apply the table of status and kind, row by row."""
        if is_delegation(event):
            return self._on_delegation(event, name)
        match event.kind:
            case "turn_ended" | "errored":
                return self._on_activity(event, name)
            case "pod_unreachable":
                return "noted" if name.status == "open" else "ignored"
            case "pod_reclaimed":
                return self._end_tenure(event, name, "inferred") if name.status == "open" else "ignored"
        return self._on_ending(event, name)

    def _on_delegation(self, event: LedgerEvent, name: Name) -> str:
        if name.status == "open":
            assert name.last is not None
            return "duplicate" if name.last.content == self._content(event) else "conflict"
        if subject_of(event) is not None and name.status in ("inferred", "ended"):
            return "late"
        self._open_by(event, name)
        return "applied"

    def _open_by(self, event: LedgerEvent, name: Name) -> None:
        callback = event.callback_address if isinstance(event, PodSpawned) else None
        speaker = event.stamp.speaker if event.stamp else None
        spawned = isinstance(event, PodSpawned)
        self._open(name, self._content(event), callback, subject_of(event), speaker, spawned, event)
        name.overtaken = subject_of(event) is None

    def _on_ending(self, event: LedgerEvent, name: Name) -> str:
        if name.status == "open":
            return self._end_tenure(event, name, "ended")
        if name.status == "ended":
            return "duplicate"
        if name.status == "inferred":
            assert name.last is not None
            name.last.end_evidence = EVIDENCE[event.kind]
            name.status = "ended"
            return "confirmed"
        return "unknown"

    def _on_activity(self, event: LedgerEvent, name: Name) -> str:
        if name.status == "open":
            return "noted"
        if name.status == "ended":
            return "late"
        if name.status != "inferred":
            return "unknown"
        last = name.last
        assert last is not None
        self._open(name, last.content, last.stated_callback, last.incarnation, last.speaker, last.observed, event)
        return "revived"

    def _end_tenure(self, event: LedgerEvent, name: Name, status: str) -> str:
        self._close(name, event.kind, event)
        name.status = status
        return "applied"

    def _open(
        self,
        name: Name,
        content: Delegation,
        callback: str | None,
        incarnation: str | None,
        speaker: str | None,
        observed: bool,
        event: LedgerEvent,
    ) -> None:
        seq, evidence = len(self.log), EVIDENCE[event.kind]
        name.last = Span(event.about, seq, evidence, content, callback, incarnation, speaker, observed)
        name.status = "open"
        self.spans.append(name.last)

    def _close(self, name: Name, by: str, event: LedgerEvent) -> None:
        assert name.last is not None
        name.last.closed, name.last.closed_by, name.last.end_evidence = len(self.log), by, EVIDENCE[event.kind]

    def _content(self, event: LedgerEvent) -> Delegation:
        if isinstance(event, ScopeSubDelegated):
            return (event.sub_socket, event.scope, event.parent_pod)
        assert isinstance(event, PodSpawned)
        return (event.socket_path, event.scope, self.owner)

    # Queries

    def registry(self) -> list[Row]:
        """Return the open tenures by name."""
        return [self._row(span) for span in sorted(self.spans, key=lambda span: span.name) if span.closed is None]

    def history(self) -> list[Row]:
        """Return every tenure, by name and then by age."""
        return [self._row(span) for span in sorted(self.spans, key=lambda span: (span.name, span.opened))]

    def _row(self, span: Span) -> Row:
        socket, scope, parent = span.content
        return {
            "pod_name": span.name,
            "socket_path": socket,
            "scope_delegated": [rule.model_dump() for rule in scope],
            "callback_address": self._callback(span),
            "parent_pod": parent,
            "delegated_by": parent,
            "incarnation": span.incarnation,
            "from_seq": span.opened,
            "until_seq": span.closed,
            "closed_by": span.closed_by,
            "evidence": span.end_evidence if span.closed else span.evidence,
        }

    def _callback(self, span: Span) -> str:
        if span.stated_callback is not None:
            return span.stated_callback
        if span.speaker is not None:
            delegations = [event for event in self.log if is_delegation(event) and subject_of(event) == span.speaker]
            return self._content(delegations[0])[0] if delegations else ""
        then = self._parent_at_opening(span)
        later = [other for other in self.spans if other.name == span.content[2] and other.opened > span.opened]
        return then.content[0] if then else later[0].content[0] if later else ""

    def _parent_at_opening(self, span: Span) -> Span | None:
        """Return the tenure of `parent_pod` that was open when `span` opened."""
        for other in self.spans:
            before = other.name == span.content[2] and other.opened < span.opened
            if before and (other.closed is None or other.closed > span.opened):
                return other
        return None

    def parent(self, span: Span) -> Span | None:
        """Return the parent tenure, or None for the owner."""
        of_speaker = [other for other in self.spans if span.speaker and other.incarnation == span.speaker]
        return of_speaker[-1] if of_speaker else self._parent_at_opening(span)

    def ancestors(self, span: Span) -> list[Span]:
        """Return the tenures above one, nearest first; a cycle ends the walk."""
        found: list[Span] = []
        at = self.parent(span)
        while at is not None and at is not span and all(at is not other for other in found):
            found.append(at)
            at = self.parent(at)
        return found

    def tree(self) -> dict[str, str]:
        """Return each open pod with its nearest open ancestor, or else the owner."""
        found = {}
        for span in self.spans:
            if span.closed is None:
                above = [other.name for other in self.ancestors(span) if other.closed is None]
                found[span.name] = above[0] if above else self.owner
        return found

    def holders(self, path: str) -> dict[str, list[str]]:
        """Return who could write `path`, each with the chain of delegations from the owner down."""
        writers = [span for span in self.spans if span.closed is None and may_write(span.content[1], path)]
        delegators = [above for span in writers for above in self.ancestors(span)]
        found = {}
        for span in writers:
            if all(span is not other for other in delegators):
                above = [other.name for other in self.ancestors(span)]
                found[span.name] = [self.owner, *reversed(above), span.name]
        return found or {self.owner: [self.owner]}

    def grants(self) -> set[tuple[str, str, str, bool]]:
        """Return the open grants: pod, target, permission and whether the grant is recursive."""
        open_spans = [span for span in self.spans if span.closed is None]
        return {(s.name, r.target, r.permission, r.recursive) for s in open_spans for r in s.content[1]}


def is_delegation(event: LedgerEvent) -> bool:
    """Return whether the event delegates a scope to a pod."""
    return event.kind in ("pod_spawned", "scope_sub_delegated")


def triple_of(event: LedgerEvent) -> tuple[str, int, str] | None:
    """Return what identifies an emission, or None for an unstamped event."""
    return (event.stamp.source, event.stamp.sequence, event.stamp.id) if event.stamp else None


def subject_of(event: LedgerEvent) -> str | None:
    """Return the incarnation that an event is about; an event without a subject counts as unstamped."""
    return event.stamp.subject if event.stamp else None


def components(path: str) -> list[str]:
    """Return the components of a path without `.` and with `..` resolved; those of an absolute path begin with `/`."""
    found: list[str] = ["/"] if path.startswith("/") else []
    for part in path.split("/"):
        if part == "..":
            if not found or found[-1] == "..":
                found.append(part)
            elif found[-1] != "/":
                found.pop()
        elif part not in ("", "."):
            found.append(part)
    return found


def may_write(scope: Iterable[ScopeRule], path: str) -> bool:
    """Return whether a scope lets its pod write `path`."""
    return any(rule.permission == "write" and reaches(rule, path) for rule in scope)


def reaches(rule: ScopeRule, path: str) -> bool:
    """Return whether a rule covers `path`."""
    target, whole = components(rule.target), components(path)
    below = whole[len(target) :]
    if ("/" in target) != ("/" in whole) or whole[: len(target)] != target or below[:1] == [".."]:
        return False
    return rule.recursive or len(below) <= 1


class OriginalRegistry:
    """The registry that the original runtime keeps in `spawned_pods.json`: records in the order of arrival."""

    def __init__(self) -> None:
        self.records: list[Row] = []

    def get(self, pod_name: str) -> Row | None:
        """Return the record of a pod."""
        return next((record for record in self.records if record["pod_name"] == pod_name), None)

    def apply(self, event: LedgerEvent) -> None:
        """Apply one wire event."""
        match event:
            case TurnEnded() | Errored():
                pass
            case ShutDown():
                self.records = [record for record in self.records if record["pod_name"] != event.pod_name]
            case ScopeSubDelegated():
                if self.get(event.sub_pod) is not None:
                    return
                parent = self.get(event.parent_pod)
                record = {
                    "pod_name": event.sub_pod,
                    "socket_path": event.sub_socket,
                    "scope_delegated": [rule.model_dump() for rule in event.scope],
                    "callback_address": parent["socket_path"] if parent else "",
                }
                self.records.append(record)
            case _:
                raise AssertionError(f"{event.kind} is not a wire event")
