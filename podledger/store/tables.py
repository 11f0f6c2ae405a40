"""The tables as SQLAlchemy sees them, conditions on their rows, and the interval tree of the spans.

Only the migrations create tables; a test compares their result with these. Times are whole microseconds since 1970
(UTC). Every key begins with the ledger.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    FromClause,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    literal_column,
    or_,
)

from podledger.core.events import DELEGATIONS

metadata = MetaData()


def _table(name: str, *columns: Column[int] | Column[str] | Column[bytes]) -> Table:
    return Table(name, metadata, *columns, sqlite_strict=True)


def _key(name: str, *, number: bool = False) -> Column[int] | Column[str]:
    return _whole(name, primary_key=True) if number else Column(name, Text, primary_key=True, nullable=False)


def _whole(name: str, *, nullable: bool = False, primary_key: bool = False) -> Column[int]:
    column: Column[int] = Column(
        name,
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=primary_key,
        nullable=nullable,
        autoincrement=False,
    )
    return column


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


ledgers = _table(
    "ledgers",
    _key("name"),
    _whole("created_us"),
    _text("parent_socket", nullable=True),
    _text("mirror", nullable=True),
    _whole("head_seq"),
    _whole("head_us"),
    _text("head_digest"),
    _whole("rejected_count"),
    _text("rejected_digest"),
    _whole("outbox_count"),
    _whole("consumer_count"),
    _whole("rebuilds"),
    _text("row_checksum"),
)

events = _table(
    "events",
    _key("ledger"),
    _key("seq", number=True),
    _whole("recorded_us"),
    _text("evidence"),
    _text("kind"),
    _text("pod_name"),
    _text("payload"),
    _whole("pid", nullable=True),
    _whole("uid", nullable=True),
    _whole("gid", nullable=True),
    _text("relation", nullable=True),
    _text("stamp_id", nullable=True),
    _text("source", nullable=True),
    _whole("sequence", nullable=True),
    _whole("sent_us", nullable=True),
    _text("subject", nullable=True),
    _text("speaker", nullable=True),
    _text("relayed_kind", nullable=True),
    _text("outcome"),
    _whole("rules"),
    _text("digest"),
)

rejected = _table(
    "rejected",
    _key("ledger"),
    _key("number", number=True),
    _whole("recorded_us"),
    Column("raw", LargeBinary, nullable=False),
    _text("reason"),
    _whole("pid", nullable=True),
    _whole("uid", nullable=True),
    _whole("gid", nullable=True),
    _text("digest"),
)

tenures = _table(
    "tenures",
    _key("ledger"),
    _key("pod_name"),
    _key("from_seq", number=True),
    _text("opened_evidence"),
    _text("incarnation", nullable=True),
    _text("speaker", nullable=True),
    _text("delegated_by"),
    _text("socket_path"),
    _text("scope"),
    _text("parent_pod"),
    _text("callback_address", nullable=True),
    _whole("pid", nullable=True),
    _text("start", nullable=True),
    _whole("until_seq", nullable=True),
    _text("closed_by", nullable=True),
    _text("closed_evidence", nullable=True),
    _whole("confirmed_seq", nullable=True),
    _text("confirmed_evidence", nullable=True),
    _whole("node"),
)

grants = _table(
    "grants",
    _key("ledger"),
    _key("pod_name"),
    _key("from_seq", number=True),
    _key("position", number=True),
    _text("target"),
    _text("path"),
    _text("permission"),
    _whole("recursive"),
    _whole("until_seq", nullable=True),
    _whole("node"),
)

pods = _table(
    "pods",
    _key("ledger"),
    _key("pod_name"),
    _text("newest", nullable=True),
    _text("status"),
    _whole("tenure_from", nullable=True),
    _text("early_ends", nullable=True),
)

streams = _table(
    "streams",
    _key("ledger"),
    _key("source"),
    _key("first", number=True),
    _whole("last"),
    _whole("first_seq"),
    _whole("last_seq"),
    _text("pod_name", nullable=True),
)

outbox = _table(
    "outbox",
    _key("ledger"),
    _key("number", number=True),
    _whole("seq"),
    _text("socket"),
    _text("payload"),
    _whole("created_us"),
    _text("status"),
    _whole("attempts"),
    _text("last_error", nullable=True),
    _whole("settled_us", nullable=True),
    _text("row_checksum"),
)

consumers = _table(
    "consumers",
    _key("ledger"),
    _key("name"),
    _whole("cursor"),
    _whole("updated_us"),
    _text("row_checksum"),
)

PROJECTIONS: Final = (tenures, grants, pods, streams)
"""The tables that a rebuild derives from the log."""


def is_delegation(entry: FromClause = events) -> ColumnElement[bool]:
    """Return the condition that an entry delegates a scope to a pod."""
    return entry.c.kind.in_([_literal(kind) for kind in sorted(DELEGATIONS)])


def is_stamped_delegation(entry: FromClause = events) -> ColumnElement[bool]:
    """Return the condition that an entry delegates an incarnation: the one of the index over such entries.

    Its values are literals, because a partial index serves only a query that repeats its condition.
    """
    return and_(entry.c.subject.is_not(None), is_delegation(entry))


def names_sender(entry: FromClause = events) -> ColumnElement[bool]:
    """Return the condition that `podledger.core.streams.names_sender` decides."""
    own = or_(entry.c.speaker.is_(None), entry.c.speaker == entry.c.subject)
    reports = [_literal(kind) for kind in ("turn_ended", "errored", "shut_down")]
    return and_(entry.c.kind.in_(reports), entry.c.relayed_kind.is_(None), own)


def open_at(span: FromClause, seq: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition that a tenure or grant that had begun by `seq` was open there."""
    return or_(span.c.until_seq.is_(None), span.c.until_seq > seq)


def _literal(value: str) -> ColumnElement[str]:
    return literal_column(f"'{value}'", Text)


def _partial_index(name: str, *columns: Column[str] | Column[int], where: ColumnElement[bool]) -> None:
    Index(name, *columns, sqlite_where=where, postgresql_where=where)


_partial_index(
    "events_delegations", events.c.ledger, events.c.subject, events.c.seq, where=is_stamped_delegation(events)
)
_partial_index(
    "events_stamps",
    *(events.c.ledger, events.c.source, events.c.sequence, events.c.stamp_id),
    where=events.c.source.is_not(None),
)
Index("tenures_spans", tenures.c.ledger, tenures.c.node, tenures.c.from_seq)
_partial_index(
    "tenures_lives",
    tenures.c.ledger,
    tenures.c.incarnation,
    tenures.c.from_seq,
    where=tenures.c.incarnation.is_not(None),
)
Index("grants_spans", grants.c.ledger, grants.c.path, grants.c.node, grants.c.from_seq)
_partial_index("streams_gaps", streams.c.ledger, streams.c.source, where=streams.c.first > literal_column("1"))
_partial_index("outbox_pending", outbox.c.ledger, outbox.c.number, where=outbox.c.status == _literal("pending"))

OPEN_NODE: Final = 0
"""The node of a span that is still open."""


def span_node(from_seq: int, until_seq: int | None) -> int:
    """Return the node that keeps the span from `from_seq` to before `until_seq`.

    Of the numbers in the span it is the one that the most powers of two divide: the highest that the span reaches in
    the binary tree over all sequence numbers (the fork node of the relational interval tree; Kriegel, Pötke and Seidl,
    "Managing intervals efficiently in object-relational databases", VLDB 2000).
    """
    if until_seq is None:
        return OPEN_NODE
    last = until_seq - 1
    shift = ((from_seq - 1) ^ last).bit_length() - 1
    return last >> shift << shift


def nodes_at(seq: int, head: int) -> list[int]:
    """Return the nodes whose spans can hold `seq`: the path down the tree to it, and the node of the open spans."""
    return [OPEN_NODE, *{(seq >> level | 1) << level for level in range(max(head, 1).bit_length())}]
