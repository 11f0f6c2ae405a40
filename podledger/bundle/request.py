"""A request for a bundle, and the scope that it comes to in a ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, FromClause, Select, and_, or_, select

from podledger.bundle.scope import BundleScope
from podledger.core.errors import UsageError
from podledger.queries.gaps import Gap, gaps_until
from podledger.queries.lineage import delegates_speaker, is_delegating_pod, is_named_parent, is_speaker, lineage
from podledger.queries.moments import Moment, span
from podledger.store.driver import PAGE
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
    first, last = span(connection, ledger, request.since, request.until)
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
    names = {from_seq: name for name, from_seq in connection.execute(query).all()}
    lines = lineage(connection, ledger, last, [(name, from_seq) for from_seq, name in names.items()])
    for from_seq, line in lines.items():
        if any(ancestor.pod_name == pod for ancestor in line):
            yield names[from_seq]


def _ancestry(connection: Connection, ledger: str, pods: frozenset[str], last: int) -> frozenset[str]:
    """Return the names of the pods from which `pods` descend."""
    names = sorted(pods)
    pages = (names[start : start + PAGE] for start in range(0, len(names), PAGE))
    values = {"ledger": ledger}
    found = (connection.execute(_ancestors(ledger, page, last), values).scalars() for page in pages)
    return frozenset(chain.from_iterable(found)) - pods


def _ancestors(ledger: str, names: Sequence[str], last: int) -> Select[str]:
    """Return the query for pods of these names and all of their ancestors up to the seq `last`."""
    child, parent = tenures.alias("child"), tenures.alias("parent")
    first = select(child.c.pod_name).where(*_up_to(child, ledger, last), child.c.pod_name.in_(names))
    line = first.cte("ancestry", recursive=True)
    children = line.join(child, and_(*_up_to(child, ledger, last), child.c.pod_name == line.c.pod_name))
    parents = children.join(parent, and_(*_up_to(parent, ledger, last)))
    name = select(parent.c.pod_name).select_from(parents)
    line = line.union(
        name.where(or_(is_named_parent(parent, child), is_delegating_pod(parent, child))),
        name.where(is_speaker(parent, child)),
        select(events.c.pod_name)
        .select_from(children.join(events, delegates_speaker(child)))
        .where(events.c.seq <= last),
    )
    return select(line.c.pod_name)


def _up_to(tenure: FromClause, ledger: str, last: int) -> tuple[ColumnElement[bool], ...]:
    return tenure.c.ledger == ledger, tenure.c.from_seq <= last


def gaps_in(connection: Connection, scope: BundleScope) -> list[Gap]:
    """Return the gaps, from the start of the span on, in the streams of those who reported about the scope's pods."""
    query = select(events.c.source, events.c.pod_name).distinct()
    query = query.where(events.c.ledger == scope.ledger, events.c.seq <= scope.until_seq, events.c.source.is_not(None))
    sources = {source for source, pod_name in connection.execute(query).all() if scope.projects(pod_name)}
    gaps = gaps_until(connection, scope.ledger, scope.until_seq)
    return [gap for gap in gaps if gap.source in sources and gap.before_seq >= scope.since_seq]
