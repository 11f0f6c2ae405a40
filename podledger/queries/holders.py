"""Holders: which pods could write a path at a moment."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, or_, select

from podledger.core import paths
from podledger.queries.lineage import Ancestor, lineage
from podledger.queries.moments import Instant, Moment, instant
from podledger.queries.spans import LEDGER, SEQ, holds_seq, node_values, parameters
from podledger.store.driver import HotStatement
from podledger.store.tables import grants


class Holder(NamedTuple):
    """A pod that could write a path, the grant that let it, and the chain of delegation from the owner down to it.

    `target` and `recursive` are None for the owner, which holds every path that it has not granted.
    """

    pod_name: str
    target: str | None
    recursive: bool | None
    chain: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the holder as `holders --json` prints it."""
        return self._asdict() | {"chain": list(self.chain)}


class _Grant(NamedTuple):
    """The grant that covers a path best, of one pod."""

    pod_name: str
    from_seq: int
    target: str
    recursive: int


def holders_at(connection: Connection, ledger: str, path: str, at: Moment) -> list[Holder]:
    """Return the pods that could write `path` and had not granted it on; if there are none, the owner.

    Raises:
        InvalidMomentError: the moment is not in the log.
    """
    moment = instant(connection, ledger, at)
    granted = _covering_grants(connection, ledger, paths.normalise(path), moment)
    lines = lineage(connection, ledger, moment.seq, [(grant.pod_name, grant.from_seq) for grant in granted])
    lent_on = {ancestor.from_seq for line in lines.values() for ancestor in line}
    holders = [
        Holder(grant.pod_name, grant.target, bool(grant.recursive), _chain(ledger, grant.pod_name, lines[from_seq]))
        for grant in granted
        if (from_seq := grant.from_seq) not in lent_on
    ]
    return holders or [Holder(ledger, None, None, (ledger,))]


def _chain(ledger: str, name: str, line: Sequence[Ancestor]) -> tuple[str, ...]:
    return (ledger, *(ancestor.pod_name for ancestor in reversed(line)), name)


def _covering_grants(connection: Connection, ledger: str, path: str, moment: Instant) -> list[_Grant]:
    """Return the open write grant that covers the path best, of each pod that has one, by name."""
    reach = paths.ancestors(path)
    nodes = node_values(moment)
    values = {"ledger": ledger, "seq": moment.seq, **nodes}
    values |= {f"path{number}": above for number, above in enumerate(reach)}
    rows = _grants(len(nodes), len(reach)).fetch(connection, values)
    best: dict[int, _Grant] = {}
    for *grant, _ in sorted(rows, key=lambda row: reach.index(row[4]), reverse=True):
        best[grant[1]] = _Grant(*grant)
    return sorted(best.values())


@cache
def _grants(nodes: int, paths: int) -> HotStatement:
    """Return the query for the open write grants on a path and its ancestors, `paths` in all.

    A grant that is not recursive covers its target and the direct children: the path itself and the one above it.
    """
    reach = parameters("path", paths)
    span = grants.alias("span")
    return HotStatement(
        select(span.c.pod_name, span.c.from_seq, span.c.target, span.c.recursive, span.c.path).where(
            span.c.ledger == LEDGER,
            span.c.path.in_(reach),
            span.c.permission == bindparam("permission", "write"),
            span.c.from_seq <= SEQ,
            or_(span.c.recursive == bindparam("recursive", 1), span.c.path.in_(reach[:2])),
            holds_seq(span, nodes),
        )
    )
