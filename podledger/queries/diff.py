"""The difference between two moments: the pods and grants that appeared, ended or changed, and by which event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select

from podledger.core.errors import InvalidMomentError
from podledger.queries.lineage import delegates_speaker
from podledger.queries.moments import Moment, resolve
from podledger.queries.registry import Pod, pods_at
from podledger.queries.spans import LEDGER, SEQ
from podledger.store.driver import HotStatement
from podledger.store.tables import events, tenures

Change = Literal["appeared", "ended", "changed", "passed"]
"""`passed`: it appeared and ended in between, and was open at neither moment."""


class Edge(NamedTuple):
    """An event that changed something: its place in the log, and its kind."""

    seq: int
    kind: str


class PodChange(NamedTuple):
    """A pod that differs between the two moments.

    If it is open at both, `fields` names the fields that differ. `ended` is the event that ended the earlier state,
    `began` the one that began the later state.
    """

    pod_name: str
    change: Change
    fields: tuple[str, ...]
    ended: Edge | None
    began: Edge | None
    before: Pod | None
    after: Pod | None

    def as_json(self) -> dict[str, Any]:
        """Return the change as `diff --json` prints it."""
        return {
            "pod_name": self.pod_name,
            "change": self.change,
            "fields": list(self.fields),
            "ended": self.ended and self.ended._asdict(),
            "began": self.began and self.began._asdict(),
            "before": self.before and self.before.as_json(),
            "after": self.after and self.after.as_json(),
        }


class GrantChange(NamedTuple):
    """A rule that was granted to a pod or taken back, by the event `edge`."""

    pod_name: str
    change: Change
    target: str
    permission: str
    recursive: bool
    edge: Edge

    def as_json(self) -> dict[str, Any]:
        """Return the change as `diff --json` prints it."""
        return self._asdict() | {"edge": self.edge._asdict()}


class RegistryDiff(NamedTuple):
    """The changes after the entry `from_seq` up to the entry `until_seq`."""

    from_seq: int
    until_seq: int
    pods: tuple[PodChange, ...]
    grants: tuple[GrantChange, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the difference as `diff --json` prints it."""
        return {
            "from_seq": self.from_seq,
            "until_seq": self.until_seq,
            "pods": [pod.as_json() for pod in self.pods],
            "grants": [grant.as_json() for grant in self.grants],
        }


_COMPARED = ("socket_path", "scope_delegated", "callback_address", "parent_pod", "incarnation")


def diff(connection: Connection, ledger: str, before: Moment, after: Moment) -> RegistryDiff:
    """Return the changes of the registry and the grants between two moments.

    Raises:
        InvalidMomentError: one of them is not in the log, or the second is the earlier.
    """
    first, last = resolve(connection, ledger, before), resolve(connection, ledger, after)
    if first > last:
        reason = f"seq {first} comes after seq {last}"
        raise InvalidMomentError(reason, hint="give the earlier moment first")
    then = {pod.pod_name: pod for pod in pods_at(connection, ledger, first)}
    now = {pod.pod_name: pod for pod in pods_at(connection, ledger, last)}
    edges = _Edges(connection, ledger, first, last)
    pods = [*_changed(edges, then, now), *_passed(edges, then, now)]
    grants = sorted(_changed_grants(edges, then, now))
    return RegistryDiff(first, last, tuple(sorted(pods, key=lambda change: change.pod_name)), tuple(grants))


class _Edges:
    """The events after the entry `first` up to the entry `last` that opened, closed or changed tenures."""

    def __init__(self, connection: Connection, ledger: str, first: int, last: int) -> None:
        self._connection = connection
        self._ledger = ledger
        self._first, self._last = first, last

    def at(self, seq: int) -> Edge:
        """Return the event at a seq."""
        ((kind,),) = _KIND.fetch(self._connection, {"ledger": self._ledger, "seq": seq})
        return Edge(seq, kind)

    def closing(self, pod: Pod) -> Edge:
        """Return the event that ended the tenure of a pod that was open at the first moment."""
        return self.at(int(self._scalar(select(tenures.c.until_seq).where(*_tenure_of(pod)))))

    def changing(self, pod: Pod, fields: tuple[str, ...]) -> Edge | None:
        """Return the event that changed a pod in the same tenure, which can only have changed its callback address."""
        seq = self._parent_known(pod) if "callback_address" in fields else None
        return None if seq is None else self.at(int(seq))

    def passed(self) -> Iterable[tuple[str, int, int]]:
        """Return the tenures that opened and closed in between: name, `from_seq`, `until_seq`."""
        query = select(tenures.c.pod_name, tenures.c.from_seq, tenures.c.until_seq).where(
            tenures.c.ledger == LEDGER,
            self._between(tenures.c.node),
            tenures.c.from_seq > self._first,
            tenures.c.until_seq <= self._last,
        )
        rows = self._connection.execute(query.order_by(tenures.c.pod_name, tenures.c.from_seq), self._values)
        return [(name, opened, closed) for name, opened, closed in rows]

    def _parent_known(self, pod: Pod) -> Any:
        """Return the first seq that delegated the pod's speaker, else the first that opened a tenure of its parent."""
        tenure = select(tenures.c.speaker).where(*_tenure_of(pod)).subquery("tenure")
        delegated = select(func.min(events.c.seq)).where(delegates_speaker(tenure), self._between(events.c.seq))
        opened = select(func.min(tenures.c.from_seq)).where(
            tenures.c.ledger == LEDGER, tenures.c.pod_name == pod.parent_pod, self._between(tenures.c.from_seq)
        )
        return self._scalar(delegated) or self._scalar(opened)

    def _between(self, seq: ColumnElement[Any]) -> ColumnElement[bool]:
        return (seq > self._first) & (seq <= self._last)

    @property
    def _values(self) -> dict[str, Any]:
        return {"ledger": self._ledger}

    def _scalar(self, query: Select[Any]) -> Any:
        return self._connection.execute(query, self._values).scalar()


_KIND: Final = HotStatement(select(events.c.kind).where(events.c.ledger == LEDGER, events.c.seq == SEQ))


def _tenure_of(pod: Pod) -> tuple[ColumnElement[bool], ...]:
    return (tenures.c.ledger == LEDGER, tenures.c.pod_name == pod.pod_name, tenures.c.from_seq == pod.from_seq)


def _changed(edges: _Edges, then: dict[str, Pod], now: dict[str, Pod]) -> Iterator[PodChange]:
    """Yield the pods that were open at one moment or both, and differ."""
    for name in then.keys() | now.keys():
        before, after = then.get(name), now.get(name)
        if before is None and after is not None:
            yield PodChange(name, "appeared", (), None, edges.at(after.from_seq), None, after)
        elif after is None and before is not None:
            yield PodChange(name, "ended", (), edges.closing(before), None, before, None)
        elif before is not None and after is not None and before != after:
            fields = tuple(field for field in _COMPARED if getattr(before, field) != getattr(after, field))
            if before.from_seq == after.from_seq:
                yield PodChange(name, "changed", fields, None, edges.changing(after, fields), before, after)
            else:
                ended, began = edges.closing(before), edges.at(after.from_seq)
                yield PodChange(name, "changed", fields, ended, began, before, after)


def _passed(edges: _Edges, then: dict[str, Pod], now: dict[str, Pod]) -> Iterator[PodChange]:
    """Yield the pods that were open in between and at neither moment, each with its first and last edge."""
    spans: dict[str, tuple[int, int]] = {}
    for name, opened, closed in edges.passed():
        if name not in then and name not in now:
            spans[name] = (spans.get(name, (opened, 0))[0], closed)
    for name, (opened, closed) in spans.items():
        yield PodChange(name, "passed", (), edges.at(closed), edges.at(opened), None, None)


def _changed_grants(edges: _Edges, then: dict[str, Pod], now: dict[str, Pod]) -> Iterator[GrantChange]:
    """Yield the rules that were granted or taken back, net: a rule that a pod holds at both moments is no change."""
    for name in then.keys() | now.keys():
        before, after = then.get(name), now.get(name)
        lent, kept = _rules(after), _rules(before)
        if after is not None and (lent - kept):
            edge = edges.at(after.from_seq)
            yield from (GrantChange(name, "appeared", *rule, edge) for rule in (lent - kept).elements())
        if before is not None and (kept - lent):
            edge = edges.closing(before)
            yield from (GrantChange(name, "ended", *rule, edge) for rule in (kept - lent).elements())


def _rules(pod: Pod | None) -> Counter[tuple[str, str, bool]]:
    rules = pod.scope_delegated if pod else ()
    return Counter((rule.target, rule.permission, rule.recursive) for rule in rules)
