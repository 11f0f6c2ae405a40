"""The registry at any moment: which pods stood, what each was lent, whose child it was, and who could write a path.

A tenure is a span of the log, and each span is kept under one node of a tree over all sequence numbers; so whatever the
size of the log, the spans that hold a seq are one indexed query for the few nodes above it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Select, alias, and_, case, func, or_, select, text

from podledger import log, paths
from podledger.errors import InvalidMomentError
from podledger.events import WITHHELD, Evidence, content_from, scope_from
from podledger.protocol import Scope, microseconds
from podledger.rules import Tenure
from podledger.tables import DELEGATION, events, grants, nodes_at, tenures

Moment = int | datetime | None
"""A seq of the log, an aware time, or None for now."""

MAX_DEPTH: Final = 1000
"""How many ancestors of a pod are followed."""


class Pod(NamedTuple):
    """One tenure of the registry; the first four fields are the record of the seed system.

    `evidence` tells how its last edge is known: its opening while it is open, its end once it is closed.
    """

    pod_name: str
    socket_path: str
    scope_delegated: Scope
    callback_address: str
    parent_pod: str
    incarnation: str | None
    from_seq: int
    until_seq: int | None
    closed_by: str | None
    evidence: Evidence

    def as_json(self) -> dict[str, Any]:
        """The pod as `pods --json` prints it."""
        return self._asdict() | {"scope_delegated": [rule.model_dump() for rule in self.scope_delegated]}

    def record(self) -> dict[str, Any]:
        """The pod as the seed system keeps it in `spawned_pods.json`."""
        fields = self.as_json()
        return {name: fields[name] for name in self._fields[:4]}


class Holder(NamedTuple):
    """A pod that could write a path, the grant that let it, and the chain of delegation from the owner down to it.

    `target` and `recursive` are None for the owner, who holds what it has not lent.
    """

    pod_name: str
    target: str | None
    recursive: bool | None
    chain: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The holder as `holders --json` prints it."""
        return self._asdict() | {"chain": list(self.chain)}


class Ancestor(NamedTuple):
    """One step up from a tenure: the ancestor's tenure, and whether it is open."""

    pod_name: str
    from_seq: int
    is_open: bool


def resolve(connection: Connection, ledger: str, at: Moment) -> int:
    """The seq that a moment names: the last one recorded up to a time.

    Raises:
        InvalidMomentError: a seq that the log does not hold, or a time without its zone.
    """
    if at is None:
        return log.read_head(connection, ledger).head_seq
    if isinstance(at, int):
        return log.check_seq(connection, ledger, at)
    if at.tzinfo is None:
        raise InvalidMomentError(f"the time {at.isoformat()} has no zone", hint="give an aware datetime")
    return log.seq_at(connection, ledger, microseconds(at))


def parse_moment(text: str) -> int | datetime:
    """A seq, or a time in ISO 8601; a time without an offset is UTC.

    Raises:
        InvalidMomentError: it is neither.
    """
    if text.isascii() and text.isdigit():
        return int(text[:20])
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        hint = "give a number, or a time like 2026-01-31T14:03:00Z"
        raise InvalidMomentError(f"{text[:60]!r} is neither a seq nor a time", hint=hint) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def pods_at(connection: Connection, ledger: str, at: Moment, *, closed: bool = False) -> list[Pod]:
    """The registry at a moment, as the ledger knew it then, by name; with `closed` also the tenures over by then."""
    seq = resolve(connection, ledger, at)
    query = _tenures_with_callbacks(seq).where(tenures.c.ledger == ledger, tenures.c.from_seq <= seq)
    if not closed:
        query = query.where(_stands(connection, ledger, seq, tenures))
    rows = connection.execute(query.order_by(tenures.c.pod_name, tenures.c.from_seq))
    return [_pod(Tenure(*row[:-2]), seq, row[-2], row[-1]) for row in rows]


def holders_at(connection: Connection, ledger: str, path: str, at: Moment) -> list[Holder]:
    """Who could write `path`: whoever was lent it and has not lent it on; the owner, if that is nobody."""
    seq = resolve(connection, ledger, at)
    granted = _covering_grants(connection, ledger, paths.normalise(path), seq)
    lines = lineage(connection, ledger, seq, [(name, from_seq) for name, from_seq, _, _ in granted])
    lent_on = {ancestor.from_seq for line in lines.values() for ancestor in line}
    holders = [
        Holder(name, target, bool(recursive), _chain(ledger, name, lines[from_seq]))
        for name, from_seq, target, recursive in granted
        if from_seq not in lent_on
    ]
    return holders or [Holder(ledger, None, None, (ledger,))]


def lineage(
    connection: Connection, ledger: str, seq: int, children: Sequence[tuple[str, int]]
) -> dict[int, list[Ancestor]]:
    """The ancestors of tenures (each a name and a `from_seq`) by `from_seq`, nearest first.

    A tenure's parent is, where its delegation was stamped, the newest tenure of the incarnation that sent it, else the
    tenure of the named parent that stood open when it opened; a walk that comes round stops before it does.
    """
    lines: dict[int, list[Ancestor]] = {from_seq: [] for _, from_seq in children}
    for start in range(0, len(children), log.PAGE):
        some = children[start : start + log.PAGE]
        values = {"ledger": ledger, "seq": seq, "depth": MAX_DEPTH}
        starts = ", ".join(f"(:n{i}, :f{i})" for i in range(len(some)))
        for i, (name, from_seq) in enumerate(some):
            values |= {f"n{i}": name, f"f{i}": from_seq}
        for child, name, from_seq, is_open in connection.execute(text(_LINEAGE.format(starts=starts)), values):
            lines[child].append(Ancestor(name, from_seq, bool(is_open)))
    return {child: _without_round(child, line) for child, line in lines.items()}


_LINEAGE: Final = """
WITH RECURSIVE
    starts (pod_name, from_seq) AS (VALUES {starts}),
    line (child, depth, pod_name, from_seq, source, parent_pod, until_seq) AS (
        SELECT t.from_seq, 0, t.pod_name, t.from_seq, t.source, t.parent_pod, t.until_seq
        FROM starts JOIN tenures AS t
            ON t.ledger = :ledger AND t.pod_name = starts.pod_name AND t.from_seq = starts.from_seq
        UNION ALL
        SELECT line.child, line.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod, p.until_seq
        FROM line JOIN tenures AS p
            ON p.ledger = :ledger AND p.incarnation = line.source AND p.from_seq = (
                SELECT max(from_seq) FROM tenures
                WHERE ledger = :ledger AND incarnation = line.source AND from_seq <= :seq AND named_seq <= :seq)
        WHERE line.source IS NOT NULL AND line.depth < :depth
        UNION ALL
        SELECT line.child, line.depth + 1, p.pod_name, p.from_seq, p.source, p.parent_pod, p.until_seq
        FROM line JOIN tenures AS p
            ON p.ledger = :ledger AND p.pod_name = line.parent_pod AND p.from_seq = (
                SELECT max(from_seq) FROM tenures
                WHERE ledger = :ledger AND pod_name = line.parent_pod AND from_seq < line.from_seq)
        WHERE line.source IS NULL AND line.depth < :depth
            AND (p.until_seq IS NULL OR p.until_seq > line.from_seq)
    )
SELECT child, pod_name, from_seq, until_seq IS NULL OR until_seq > :seq
FROM line WHERE depth > 0 ORDER BY child, depth
"""


def _without_round(child: int, line: list[Ancestor]) -> list[Ancestor]:
    seen = {child}
    for position, ancestor in enumerate(line):
        if ancestor.from_seq in seen:
            return line[:position]
        seen.add(ancestor.from_seq)
    return line


def _chain(ledger: str, name: str, line: Sequence[Ancestor]) -> tuple[str, ...]:
    return (ledger, *(ancestor.pod_name for ancestor in reversed(line)), name)


def _covering_grants(connection: Connection, ledger: str, path: str, seq: int) -> list[tuple[str, int, str, int]]:
    """The open write grant that covers the path best, of each pod that has one, by name."""
    reach = paths.ancestors(path)
    covers = or_(grants.c.recursive == 1, grants.c.path.in_(reach[:2]))
    query = select(grants.c.pod_name, grants.c.from_seq, grants.c.target, grants.c.recursive, grants.c.path).where(
        grants.c.ledger == ledger,
        grants.c.path.in_(reach),
        grants.c.permission == "write",
        grants.c.from_seq <= seq,
        covers,
        _stands(connection, ledger, seq, grants),
    )
    best: dict[int, tuple[str, int, str, int]] = {}
    rows = sorted(connection.execute(query), key=lambda row: reach.index(row[4]), reverse=True)
    for name, from_seq, target, recursive, _ in rows:
        best[from_seq] = (name, from_seq, target, recursive)
    return sorted(best.values())


def _stands(connection: Connection, ledger: str, seq: int, spans: Any) -> Any:
    """The condition that a span holds `seq`; the first half finds the few candidates by index."""
    nodes = nodes_at(seq, log.read_head(connection, ledger).head_seq)
    return and_(spans.c.node.in_(nodes), or_(spans.c.until_seq.is_(None), spans.c.until_seq > seq))


def _tenures_with_callbacks(seq: int) -> Select[Any]:
    """Every tenure, the socket of the parent that it was opened under, and the delegation of the life that sent it."""
    parents = alias(tenures, "parents")
    of_parent = and_(
        parents.c.ledger == tenures.c.ledger,
        parents.c.pod_name == tenures.c.parent_pod,
        tenures.c.source.is_(None),
        tenures.c.callback_address.is_(None),
    )
    open_then = or_(parents.c.until_seq.is_(None), parents.c.until_seq > tenures.c.from_seq)
    before = (
        select(case((open_then, parents.c.socket_path)))
        .where(of_parent, parents.c.from_seq < tenures.c.from_seq)
        .order_by(parents.c.from_seq.desc())
        .limit(1)
    )
    after = (
        select(parents.c.socket_path)
        .where(of_parent, parents.c.from_seq > tenures.c.from_seq, parents.c.from_seq <= seq)
        .order_by(parents.c.from_seq)
        .limit(1)
    )
    parent_socket = func.coalesce(before.scalar_subquery(), after.scalar_subquery())
    delegation = (
        select(events.c.kind + ":" + events.c.payload)
        .where(events.c.ledger == tenures.c.ledger, events.c.subject == tenures.c.source, text(DELEGATION))
        .where(events.c.seq <= seq)
        .order_by(events.c.seq)
        .limit(1)
        .scalar_subquery()
    )
    return select(*(tenures.c[field] for field in Tenure._fields), parent_socket, delegation)


def _pod(tenure: Tenure, seq: int, parent_socket: str | None, delegation: str | None) -> Pod:
    closed = tenure.until_seq is not None and tenure.until_seq <= seq
    confirmed = tenure.confirmed_seq is not None and tenure.confirmed_seq <= seq
    ended = tenure.confirmed_evidence if confirmed else tenure.closed_evidence
    return Pod(
        tenure.pod_name,
        tenure.socket_path,
        scope_from(tenure.scope),
        _callback(tenure, parent_socket, delegation),
        tenure.parent_pod,
        tenure.incarnation if (tenure.named_seq or 0) <= seq else None,
        tenure.from_seq,
        tenure.until_seq if closed else None,
        tenure.closed_by if closed else None,
        ended if closed and ended else tenure.opened_evidence,
    )


def _callback(tenure: Tenure, parent_socket: str | None, delegation: str | None) -> str:
    if tenure.callback_address is not None:
        return tenure.callback_address
    if tenure.source is None:
        return parent_socket or ""
    if delegation is None:
        return ""
    kind, _, payload = delegation.partition(":")
    if payload == WITHHELD:
        return ""
    return content_from(kind, payload, "").socket_path


def nearest_open(line: Sequence[Ancestor]) -> Ancestor | None:
    """The nearest ancestor that is open; None where only the owner is left."""
    return next((ancestor for ancestor in line if ancestor.is_open), None)


def children_by_parent(connection: Connection, ledger: str, at: Moment) -> tuple[int, dict[int | None, list[Pod]]]:
    """The tree at a moment: the seq, and by the `from_seq` of the nearest open ancestor (None: the owner) its pods."""
    seq = resolve(connection, ledger, at)
    pods = pods_at(connection, ledger, seq)
    lines = lineage(connection, ledger, seq, [(pod.pod_name, pod.from_seq) for pod in pods])
    tree: dict[int | None, list[Pod]] = defaultdict(list)
    for pod in pods:
        parent = nearest_open(lines[pod.from_seq])
        tree[parent.from_seq if parent else None].append(pod)
    return seq, dict(tree)


def span(connection: Connection, ledger: str, since: Moment, until: Moment) -> tuple[int, int]:
    """The first and the last seq from one moment up to another; a time counts with its microsecond."""
    last = resolve(connection, ledger, until)
    if since is None:
        return 1, last
    if isinstance(since, datetime):
        return log.seq_at(connection, ledger, microseconds(since) - 1) + 1, last
    return max(1, log.check_seq(connection, ledger, max(0, since - 1)) + 1), last


MAX_DRAWN: Final = 100
"""How deep a tree is drawn; what is deeper stands beside its ancestor of that depth."""


def tree_json(owner: str, seq: int, children: dict[int | None, list[Pod]]) -> dict[str, Any]:
    """The tree as `pods --tree --json` prints it: the owner, and under each pod its children.

    Of pods that are each other's ancestors the first that came stands under the owner, so that every pod is there once.
    """
    root: dict[str, Any] = {"pod_name": owner, "seq": seq, "children": []}
    placed: set[int] = set()
    _grow(root, children.get(None, []), children, placed)
    for pod in sorted((pod for pods in children.values() for pod in pods), key=lambda pod: pod.from_seq):
        _grow(root, [pod], children, placed)
    return root


def _grow(root: dict[str, Any], pods: Sequence[Pod], children: dict[int | None, list[Pod]], placed: set[int]) -> None:
    """Put pods, each with all below it, under a node, but for those that have their place."""
    waiting = [(root, pods, 1)]
    while waiting:
        above, pods, depth = waiting.pop()
        for pod in pods:
            if pod.from_seq in placed:
                continue
            placed.add(pod.from_seq)
            node = pod.as_json() | {"children": []}
            above["children"].append(node)
            waiting.append((node if depth < MAX_DRAWN else above, children.get(pod.from_seq, []), depth + 1))
