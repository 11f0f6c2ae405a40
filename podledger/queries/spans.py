"""Spans of the log that hold a seq.

Each span is kept under one node of a tree over all sequence numbers, so the spans that hold a seq are one indexed query
for the few nodes above it, however long the log is.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, BindParameter, ColumnElement, FromClause, Text, and_, bindparam

from podledger.queries.moments import Instant
from podledger.store.tables import nodes_at, open_at

LEDGER: Final = bindparam("ledger", type_=Text)
SEQ: Final = bindparam("seq", type_=BigInteger)
"""The ledger and the seq that a query is about."""


def parameters(name: str, count: int) -> list[BindParameter[Any]]:
    """Return the parameters `name0`, `name1` and so on, for an `IN` in a hot statement."""
    return [bindparam(f"{name}{number}") for number in range(count)]


def holds_seq(span: FromClause, nodes: int) -> ColumnElement[bool]:
    """Return the condition that a span that began by `seq` holds it; its first half finds the few candidates."""
    return and_(span.c.node.in_(parameters("node", nodes)), open_at(span, SEQ))


def node_values(moment: Instant) -> dict[str, int]:
    """Return the values of the node parameters of `holds_seq`."""
    return {f"node{number}": node for number, node in enumerate(nodes_at(moment.seq, moment.head))}
