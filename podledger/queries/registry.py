"""The registry at any moment: which pods were open, their scopes, and where each calls back."""

from __future__ import annotations

from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, FromClause, and_, case, func, literal_column, select

from podledger.core.delegations import delegation_from, scope_from
from podledger.core.digest import NO_PAYLOAD
from podledger.core.events import Evidence
from podledger.core.fields import Scope
from podledger.core.rules import Tenure
from podledger.core.times import timestamp
from podledger.queries.lineage import delegates_speaker, is_named_parent
from podledger.queries.moments import Moment, instant
from podledger.queries.spans import LEDGER, SEQ, holds_seq, node_values
from podledger.store.driver import HotStatement
from podledger.store.tables import OPEN_NODE, events, open_at, pods, tenures


class Pod(NamedTuple):
    """One tenure in the registry. The first four fields are the original runtime's record.

    `evidence` states how its last change is known: its opening while it is open, its end once it is closed.
    `since_us` and `until_us` are when its opening and its end were recorded, in microseconds since 1970. `pid` and
    `start` identify its process, if the owner stated it.
    """

    pod_name: str
    socket_path: str
    scope_delegated: Scope
    callback_address: str
    parent_pod: str
    delegated_by: str
    incarnation: str | None
    from_seq: int
    until_seq: int | None
    closed_by: str | None
    evidence: Evidence
    since_us: int | None = None
    until_us: int | None = None
    pid: int | None = None
    start: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the pod as `pods --json` prints it."""
        return {
            "pod_name": self.pod_name,
            "socket_path": self.socket_path,
            "scope_delegated": [rule.model_dump() for rule in self.scope_delegated],
            "callback_address": self.callback_address,
            "parent_pod": self.parent_pod,
            "delegated_by": self.delegated_by,
            "incarnation": self.incarnation,
            "from_seq": self.from_seq,
            "since": None if self.since_us is None else timestamp(self.since_us),
            "until_seq": self.until_seq,
            "until": None if self.until_us is None else timestamp(self.until_us),
            "closed_by": self.closed_by,
            "evidence": self.evidence,
        }

    def record(self) -> dict[str, Any]:
        """Return the pod as the original runtime keeps it in `spawned_pods.json`."""
        fields = self.as_json()
        return {name: fields[name] for name in self._fields[:4]}


def pods_at(connection: Connection, ledger: str, at: Moment, *, closed: bool = False) -> list[Pod]:
    """Return the registry at a moment, by name; `closed` adds the tenures that had ended by then.

    Raises:
        InvalidMomentError: the moment is not in the log.
    """
    moment = instant(connection, ledger, at)
    nodes = {} if closed else node_values(moment)
    rows = _pods(len(nodes)).fetch(connection, {"ledger": ledger, "seq": moment.seq, **nodes})
    return [_pod(Tenure(*row[:-4]), moment.seq, *row[-4:]) for row in sorted(rows, key=itemgetter(0, 1))]


def newest_incarnation(connection: Connection, ledger: str, pod_name: str) -> str | None:
    """Return the newest incarnation of a pod name that was delegated, or None."""
    query = select(pods.c.newest).where(pods.c.ledger == ledger, pods.c.pod_name == pod_name)
    return connection.execute(query).scalar()


def registry_bytes(connection: Connection, ledger: str) -> int:
    """Return about how many bytes the registry of now takes as JSON."""
    texts = (tenures.c.scope, tenures.c.pod_name, tenures.c.socket_path)
    size = func.sum(sum((func.length(text) for text in texts), literal_column("200")))
    query = select(func.coalesce(size, 0)).where(tenures.c.ledger == ledger, tenures.c.node == OPEN_NODE)
    return int(connection.execute(query).scalar_one())


@cache
def _pods(nodes: int) -> HotStatement:
    """Return the query for the tenures up to a seq, or with `nodes` for those that hold it.

    Each row ends with the socket of the tenure's parent, the delegation of the incarnation that delegated it, and its
    times. The rows have no order: to give them one, SQLite would walk all tenures by name instead of sorting a few.
    """
    span = tenures.alias("span")
    columns = [span.c[field] for field in Tenure._fields]
    times = (_recorded_us(span, span.c[field]) for field in ("from_seq", "until_seq"))
    query = select(*columns, _parent_socket(span), _source_delegation(span), *times)
    query = query.where(span.c.ledger == LEDGER, span.c.from_seq <= SEQ)
    return HotStatement(query.where(holds_seq(span, nodes)) if nodes else query)


def _parent_socket(span: FromClause) -> ColumnElement[str]:
    """Return the socket of the parent that was open when the tenure opened, else of the first to open after it."""
    parent = tenures.alias("parent")
    sockets = select(parent.c.socket_path).where(
        span.c.speaker.is_(None), span.c.callback_address.is_(None), is_named_parent(parent, span)
    )
    before = sockets.with_only_columns(case((open_at(parent, span.c.from_seq), parent.c.socket_path)))
    before = before.where(parent.c.from_seq < span.c.from_seq).order_by(parent.c.from_seq.desc())
    after = sockets.where(and_(parent.c.from_seq > span.c.from_seq, parent.c.from_seq <= SEQ))
    after = after.order_by(parent.c.from_seq)
    return func.coalesce(*(each.limit(1).correlate(span).scalar_subquery() for each in (before, after)))


def _source_delegation(span: FromClause) -> ColumnElement[str]:
    """Return the kind and payload of the delegation of the incarnation that delegated the tenure."""
    delegation = select(events.c.kind + ":" + events.c.payload).where(delegates_speaker(span), events.c.seq <= SEQ)
    return delegation.order_by(events.c.seq).limit(1).correlate(span).scalar_subquery()


def _recorded_us(span: FromClause, seq: ColumnElement[int]) -> ColumnElement[int]:
    """Return when an entry was recorded."""
    recorded = select(events.c.recorded_us).where(events.c.ledger == span.c.ledger, events.c.seq == seq)
    return recorded.correlate(span).scalar_subquery()


def _pod(
    tenure: Tenure, seq: int, parent_socket: str | None, delegation: str | None, since_us: int, until_us: int | None
) -> Pod:
    closed = tenure.until_seq is not None and tenure.until_seq <= seq
    confirmed = tenure.confirmed_seq is not None and tenure.confirmed_seq <= seq
    ended = tenure.confirmed_evidence if confirmed else tenure.closed_evidence
    return Pod(
        tenure.pod_name,
        tenure.socket_path,
        scope_from(tenure.scope),
        _callback(tenure, parent_socket, delegation),
        tenure.parent_pod,
        tenure.delegated_by,
        tenure.incarnation,
        tenure.from_seq,
        tenure.until_seq if closed else None,
        tenure.closed_by if closed else None,
        ended if closed and ended else tenure.opened_evidence,
        since_us,
        until_us if closed else None,
        tenure.pid,
        tenure.start,
    )


def _callback(tenure: Tenure, parent_socket: str | None, delegation: str | None) -> str:
    if tenure.callback_address is not None:
        return tenure.callback_address
    if tenure.speaker is None:
        return parent_socket or ""
    kind, _, payload = (delegation or "").partition(":")
    return delegation_from(kind, payload, "", None).socket_path if delegation and payload != NO_PAYLOAD else ""
