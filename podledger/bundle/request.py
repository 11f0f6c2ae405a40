"""A request for a bundle, and the scope that it comes to in a ledger."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import Connection, or_, select, text

from podledger.bundle.scope import BundleScope, names_json
from podledger.core.errors import UsageError
from podledger.queries import registry
from podledger.queries.gaps import Gap, gaps_until
from podledger.queries.registry import Moment
from podledger.store.log import read_head
from podledger.store.tables import events, tenures


class BundleRequest(NamedTuple):
    """A request for a bundle: a pod and all pods below it (None: all pods), from one moment up to another."""

    pod: str | None = None
    since: Moment = None
    until: Moment = None


def scope_of(connection: Connection, ledger: str, request: BundleRequest) -> BundleScope:
    """Return the scope that a request comes to.

    Raises:
        InvalidMomentError: a moment is not in the log.
        UsageError: the log holds nothing about the pod, or the span is empty.
    """
    pod = request.pod
    first, last = registry.span(connection, ledger, request.since, request.until)
    if first > last:
        if not read_head(connection, ledger).head_seq:
            raise UsageError("the ledger is empty", hint="there is nothing to put into a bundle yet")
        raise UsageError("the span holds no entries", hint="give a --since before the --until, both in the log")
    if pod is None:
        return BundleScope(ledger, None, first, last, None, frozenset())
    if not _is_known(connection, ledger, pod, last):
        raise UsageError(
            f"the ledger holds nothing about a pod {pod!r} up to seq {last}", hint="see `podledger pods --all`"
        )
    pods = frozenset({pod, *_descendants(connection, ledger, pod, first, last)})
    return BundleScope(ledger, pod, first, last, pods, _ancestry(connection, ledger, pods, last))


def _is_known(connection: Connection, ledger: str, pod: str, last: int) -> bool:
    query = select(events.c.seq).where(events.c.ledger == ledger, events.c.pod_name == pod, events.c.seq <= last)
    return connection.execute(query.limit(1)).first() is not None


def _descendants(connection: Connection, ledger: str, pod: str, first: int, last: int) -> Iterator[str]:
    """Yield the names of the pods that were open in the span and descend from a pod of this name."""
    query = select(tenures.c.pod_name, tenures.c.from_seq).where(
        tenures.c.ledger == ledger,
        tenures.c.from_seq <= last,
        or_(tenures.c.until_seq.is_(None), tenures.c.until_seq > first),
    )
    names = {from_seq: name for name, from_seq in connection.execute(query)}
    lines = registry.lineage(connection, ledger, last, [(name, from_seq) for from_seq, name in names.items()])
    for from_seq, line in lines.items():
        if any(ancestor.pod_name == pod for ancestor in line):
            yield names[from_seq]


_ANCESTRY: Final = """
WITH RECURSIVE ancestry (pod_name) AS (
    SELECT value FROM json_each(:pods)
    UNION
    SELECT p.pod_name
    FROM ancestry JOIN tenures AS t ON t.ledger = :ledger AND t.pod_name = ancestry.pod_name AND t.from_seq <= :last
        JOIN tenures AS p ON p.ledger = :ledger AND p.from_seq <= :last AND p.pod_name = t.parent_pod
    WHERE t.source IS NULL
    UNION
    SELECT e.pod_name
    FROM ancestry JOIN tenures AS t ON t.ledger = :ledger AND t.pod_name = ancestry.pod_name AND t.from_seq <= :last
        JOIN events AS e ON e.ledger = :ledger AND e.subject = t.source AND e.seq <= :last
            AND e.subject IS NOT NULL AND e.kind IN ('pod_spawned', 'scope_sub_delegated')
    UNION
    SELECT p.pod_name
    FROM ancestry JOIN tenures AS t ON t.ledger = :ledger AND t.pod_name = ancestry.pod_name AND t.from_seq <= :last
        JOIN tenures AS p ON p.ledger = :ledger AND p.from_seq <= :last AND p.incarnation = t.source
)
SELECT pod_name FROM ancestry
"""
"""A tenure's parents: by name where the delegation was not stamped, else by the incarnation that delegated it."""


def _ancestry(connection: Connection, ledger: str, pods: frozenset[str], last: int) -> frozenset[str]:
    """Return the names of the pods from which `pods` descend."""
    values = {"ledger": ledger, "pods": names_json(pods), "last": last}
    return frozenset(connection.execute(text(_ANCESTRY), values).scalars()) - pods


def gaps_in(connection: Connection, scope: BundleScope) -> list[Gap]:
    """Return the gaps, from the start of the span on, in the streams of those who reported about the scope's pods."""
    query = select(events.c.source, events.c.pod_name).distinct()
    query = query.where(events.c.ledger == scope.ledger, events.c.seq <= scope.until_seq, events.c.source.is_not(None))
    sources = {source for source, pod_name in connection.execute(query) if scope.projects(pod_name)}
    gaps = gaps_until(connection, scope.ledger, scope.until_seq)
    return [gap for gap in gaps if gap.source in sources and gap.before_seq >= scope.since_seq]
