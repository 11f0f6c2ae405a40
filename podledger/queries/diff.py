"""What changed between two moments: the pods and the grants that appeared, ended or changed, and by which event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, text

from podledger.core.errors import InvalidMomentError
from podledger.queries import registry
from podledger.queries.registry import Moment, Pod

Change = Literal["appeared", "ended", "changed", "passed"]
"""`passed`: it appeared and ended in between, and stands at neither moment."""


class Edge(NamedTuple):
    """An event that changed something: its place in the log, and its kind."""

    seq: int
    kind: str


class PodChange(NamedTuple):
    """A pod that is not at the second moment what it was at the first.

    `fields` names what differs where both hold it; `ended` is the event that ended what stood before, `began` the one
    that made it what it is now.
    """

    pod_name: str
    change: Change
    fields: tuple[str, ...]
    ended: Edge | None
    began: Edge | None
    before: Pod | None
    after: Pod | None

    def as_json(self) -> dict[str, Any]:
        """The change as `diff --json` prints it."""
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
    """A rule that was lent to a pod or taken back, by the event `edge`."""

    pod_name: str
    change: Change
    target: str
    permission: str
    recursive: bool
    edge: Edge

    def as_json(self) -> dict[str, Any]:
        """The change as `diff --json` prints it."""
        return self._asdict() | {"edge": self.edge._asdict()}


class RegistryDiff(NamedTuple):
    """What changed after the entry `from_seq` up to the entry `until_seq`."""

    from_seq: int
    until_seq: int
    pods: tuple[PodChange, ...]
    grants: tuple[GrantChange, ...]

    def as_json(self) -> dict[str, Any]:
        """The difference as `diff --json` prints it."""
        return {
            "from_seq": self.from_seq,
            "until_seq": self.until_seq,
            "pods": [pod.as_json() for pod in self.pods],
            "grants": [grant.as_json() for grant in self.grants],
        }


_COMPARED = ("socket_path", "scope_delegated", "callback_address", "parent_pod", "incarnation")


def diff(connection: Connection, ledger: str, before: Moment, after: Moment) -> RegistryDiff:
    """What changed in the registry and the grants between two moments.

    Raises:
        InvalidMomentError: one of them is not in the log, or the second is the earlier.
    """
    first, last = registry.resolve(connection, ledger, before), registry.resolve(connection, ledger, after)
    if first > last:
        reason = f"seq {first} comes after seq {last}"
        raise InvalidMomentError(reason, hint="give the earlier moment first")
    then = {pod.pod_name: pod for pod in registry.pods_at(connection, ledger, first)}
    now = {pod.pod_name: pod for pod in registry.pods_at(connection, ledger, last)}
    edges = _Edges(connection, ledger, first, last)
    pods = [*_standing(edges, then, now), *_passed(edges, then, now)]
    grants = sorted(_grants(edges, then, now))
    return RegistryDiff(first, last, tuple(sorted(pods, key=lambda change: change.pod_name)), tuple(grants))


class _Edges:
    """The events between two moments that opened or closed tenures."""

    def __init__(self, connection: Connection, ledger: str, first: int, last: int) -> None:
        self._connection = connection
        self._values = {"ledger": ledger, "first": first, "last": last}

    def passed(self) -> list[tuple[str, int, int]]:
        """The tenures that opened and closed in between: name, from, until."""
        return [(name, opened, closed) for name, opened, closed in self._rows(_PASSED)]

    def at(self, seq: int) -> Edge:
        """The event at a seq."""
        return Edge(seq, str(self._scalar("SELECT kind FROM events WHERE ledger = :ledger AND seq = :seq", seq=seq)))

    def closing(self, pod: Pod) -> Edge:
        """The event that ended the tenure of a pod that stood at the first moment."""
        return self.at(int(self._scalar(_CLOSED, name=pod.pod_name, seq=pod.from_seq)))

    def telling(self, pod: Pod, fields: tuple[str, ...]) -> Edge | None:
        """The last event in between by which a standing tenure was better known: its life, or where to call back."""
        values = {"name": pod.pod_name, "seq": pod.from_seq, "parent": pod.parent_pod}
        found = [self._scalar(_NAMED, **values)] if "incarnation" in fields else []
        if "callback_address" in fields:
            found.append(self._scalar(_SOURCE_DELEGATED, **values) or self._scalar(_PARENT_OPENED, **values))
        seqs = [int(seq) for seq in found if seq is not None]
        return self.at(max(seqs)) if seqs else None

    def _rows(self, query: str) -> Iterable[Any]:
        return self._connection.execute(text(query), self._values)

    def _scalar(self, query: str, **values: Any) -> Any:
        return self._connection.execute(text(query), self._values | values).scalar()


_PASSED = """
SELECT pod_name, from_seq, until_seq FROM tenures
WHERE ledger = :ledger AND node > :first AND node <= :last AND from_seq > :first AND until_seq <= :last
ORDER BY pod_name, from_seq
"""
_TENURE = "ledger = :ledger AND pod_name = :name AND from_seq = :seq"
_CLOSED = f"SELECT until_seq FROM tenures WHERE {_TENURE}"
_NAMED = f"SELECT named_seq FROM tenures WHERE {_TENURE} AND named_seq > :first AND named_seq <= :last"
_SOURCE_DELEGATED = f"""
SELECT min(seq) FROM events
WHERE ledger = :ledger AND subject = (SELECT source FROM tenures WHERE {_TENURE})
    AND subject IS NOT NULL AND kind IN ('pod_spawned', 'scope_sub_delegated') AND seq > :first AND seq <= :last
"""
_PARENT_OPENED = """
SELECT min(from_seq) FROM tenures
WHERE ledger = :ledger AND pod_name = :parent AND from_seq > :first AND from_seq <= :last
"""


def _standing(edges: _Edges, then: dict[str, Pod], now: dict[str, Pod]) -> Iterator[PodChange]:
    """The pods that stand at one moment or both, and are not the same."""
    for name in then.keys() | now.keys():
        before, after = then.get(name), now.get(name)
        if before is None and after is not None:
            yield PodChange(name, "appeared", (), None, edges.at(after.from_seq), None, after)
        elif after is None and before is not None:
            yield PodChange(name, "ended", (), edges.closing(before), None, before, None)
        elif before is not None and after is not None and before != after:
            fields = tuple(field for field in _COMPARED if getattr(before, field) != getattr(after, field))
            if before.from_seq == after.from_seq:
                yield PodChange(name, "changed", fields, None, edges.telling(after, fields), before, after)
            else:
                ended, began = edges.closing(before), edges.at(after.from_seq)
                yield PodChange(name, "changed", fields, ended, began, before, after)


def _passed(edges: _Edges, then: dict[str, Pod], now: dict[str, Pod]) -> Iterator[PodChange]:
    """The pods that stand at neither moment and did in between, each with its first and last edge."""
    spans: dict[str, tuple[int, int]] = {}
    for name, opened, closed in edges.passed():
        if name not in then and name not in now:
            spans[name] = (spans.get(name, (opened, 0))[0], closed)
    for name, (opened, closed) in spans.items():
        yield PodChange(name, "passed", (), edges.at(closed), edges.at(opened), None, None)


def _grants(edges: _Edges, then: dict[str, Pod], now: dict[str, Pod]) -> Iterator[GrantChange]:
    """What was lent or taken back, net: what a pod holds at both moments is no change."""
    for name in then.keys() | now.keys():
        before, after = then.get(name), now.get(name)
        lent, kept = _rules(after), _rules(before)
        if after is not None:
            edge = edges.at(after.from_seq)
            yield from (GrantChange(name, "appeared", *rule, edge) for rule in (lent - kept).elements())
        if before is not None and (kept - lent):
            edge = edges.closing(before)
            yield from (GrantChange(name, "ended", *rule, edge) for rule in (kept - lent).elements())


def _rules(pod: Pod | None) -> Counter[tuple[str, str, bool]]:
    rules = pod.scope_delegated if pod else ()
    return Counter((rule.target, rule.permission, rule.recursive) for rule in rules)
