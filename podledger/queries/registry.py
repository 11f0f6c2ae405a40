"""The registry at any moment: which pods stood, what each was lent, whose child it was, and who could write a path.

A tenure is a span of the log, and each span is kept under one node of a tree over all sequence numbers; so whatever the
size of the log, the spans that hold a seq are one indexed query for the few nodes above it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from podledger.core import paths
from podledger.core.errors import InvalidMomentError
from podledger.core.events import NO_PAYLOAD, Evidence, delegation_from, scope_from
from podledger.core.protocol import Scope, microseconds
from podledger.core.rules import Tenure
from podledger.store import log
from podledger.store.driver import PAGE, fetch
from podledger.store.tables import DELEGATION, OPEN_NODE, nodes_at

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


class _Instant(NamedTuple):
    """A moment found in the log: its seq, and the log's last one."""

    seq: int
    head: int


def standing_bytes(connection: Connection, ledger: str) -> int:
    """About how many bytes the registry of now takes as JSON."""
    query = "SELECT total(length(scope) + length(pod_name) + length(socket_path) + 200) FROM tenures "
    return int(fetch(connection, f"{query} WHERE ledger = ? AND node = ?", (ledger, OPEN_NODE))[0][0])


def resolve(connection: Connection, ledger: str, at: Moment) -> int:
    """The seq that a moment names: the last one recorded up to a time.

    Raises:
        InvalidMomentError: a seq that the log does not hold, or a time without its zone.
    """
    return _instant(connection, ledger, at).seq


def _instant(connection: Connection, ledger: str, at: Moment) -> _Instant:
    head = log.read_head(connection, ledger).head_seq
    if at is None:
        return _Instant(head, head)
    if isinstance(at, int):
        return _Instant(log.check_within(at, head), head)
    if not isinstance(at, datetime):
        raise InvalidMomentError(f"{at!r} is no moment", hint="give a seq, an aware datetime, or None for now")
    if at.tzinfo is None:
        raise InvalidMomentError(f"the time {at.isoformat()} has no zone", hint="give an aware datetime")
    return _Instant(log.seq_at(connection, ledger, microseconds(at)), head)


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
    instant = _instant(connection, ledger, at)
    stands, nodes = ("1", {}) if closed else _stands(instant)
    values = {"ledger": ledger, "seq": instant.seq, **nodes}
    rows = fetch(connection, _PODS.format(stands=stands), values)
    return [_pod(Tenure(*row[:-2]), instant.seq, row[-2], row[-1]) for row in sorted(rows, key=itemgetter(0, 1))]


_PODS: Final = f"""
SELECT {", ".join(f"span.{field}" for field in Tenure._fields)},
    coalesce(
        (SELECT CASE WHEN parent.until_seq IS NULL OR parent.until_seq > span.from_seq THEN parent.socket_path END
            FROM tenures AS parent
            WHERE span.source IS NULL AND span.callback_address IS NULL
                AND parent.ledger = span.ledger AND parent.pod_name = span.parent_pod
                AND parent.from_seq < span.from_seq
            ORDER BY parent.from_seq DESC LIMIT 1),
        (SELECT parent.socket_path
            FROM tenures AS parent
            WHERE span.source IS NULL AND span.callback_address IS NULL
                AND parent.ledger = span.ledger AND parent.pod_name = span.parent_pod
                AND parent.from_seq > span.from_seq AND parent.from_seq <= :seq
            ORDER BY parent.from_seq LIMIT 1)),
    (SELECT kind || ':' || payload
        FROM events
        WHERE ledger = span.ledger AND subject = span.source AND {DELEGATION} AND seq <= :seq
        ORDER BY seq LIMIT 1)
FROM tenures AS span
WHERE span.ledger = :ledger AND span.from_seq <= :seq AND {{stands}}
"""
"""The tenures up to a seq, each with the socket of the parent that it was opened under, and with the delegation of the
life that sent it. Without an order, for which SQLite would rather walk all tenures by name than sort a few."""


def holders_at(connection: Connection, ledger: str, path: str, at: Moment) -> list[Holder]:
    """Who could write `path`: whoever was lent it and has not lent it on; the owner, if that is nobody."""
    instant = _instant(connection, ledger, at)
    granted = _covering_grants(connection, ledger, paths.normalise(path), instant)
    lines = lineage(connection, ledger, instant.seq, [(name, from_seq) for name, from_seq, _, _ in granted])
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
    for start in range(0, len(children), PAGE):
        some = children[start : start + PAGE]
        starts = ", ".join(f"(:name{number}, :from{number})" for number in range(len(some)))
        values = {"ledger": ledger, "seq": seq, "depth": MAX_DEPTH}
        values |= _named("name", [name for name, _ in some]) | _named("from", [from_seq for _, from_seq in some])
        for child, name, from_seq, is_open in fetch(connection, _LINEAGE.format(starts=starts), values):
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


def _covering_grants(
    connection: Connection, ledger: str, path: str, instant: _Instant
) -> list[tuple[str, int, str, int]]:
    """The open write grant that covers the path best, of each pod that has one, by name."""
    reach = paths.ancestors(path)
    stands, nodes = _stands(instant)
    values = {"ledger": ledger, "seq": instant.seq, **nodes, **_named("path", reach)}
    query = _GRANTS.format(stands=stands, reach=_marks("path", reach), near=_marks("path", reach[:2]))
    best: dict[int, tuple[str, int, str, int]] = {}
    rows = fetch(connection, query, values)
    for name, from_seq, target, recursive, _ in sorted(rows, key=lambda row: reach.index(row[4]), reverse=True):
        best[from_seq] = (name, from_seq, target, recursive)
    return sorted(best.values())


_GRANTS: Final = """
SELECT span.pod_name, span.from_seq, span.target, span.recursive, span.path
FROM grants AS span
WHERE span.ledger = :ledger AND span.path IN ({reach}) AND span.permission = 'write' AND span.from_seq <= :seq
    AND (span.recursive = 1 OR span.path IN ({near})) AND {stands}
"""


def _stands(instant: _Instant) -> tuple[str, dict[str, int]]:
    """The condition that `span` holds the seq, and its values; its first half finds the few candidates by index."""
    nodes = nodes_at(instant.seq, instant.head)
    condition = f"span.node IN ({_marks('node', nodes)}) AND (span.until_seq IS NULL OR span.until_seq > :seq)"
    return condition, _named("node", nodes)


def _marks(name: str, values: Sequence[Any]) -> str:
    return ", ".join(f":{name}{number}" for number in range(len(values)))


def _named(name: str, values: Sequence[Any]) -> dict[str, Any]:
    return {f"{name}{number}": value for number, value in enumerate(values)}


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
    if payload == NO_PAYLOAD:
        return ""
    return delegation_from(kind, payload, "").socket_path


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
    head = log.read_head(connection, ledger).head_seq
    return max(1, since if since == head + 1 else log.check_within(since, head)), last


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
