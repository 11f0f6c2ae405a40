"""What of a ledger a bundle shows: a pod and all below it, over a span of the log.

Shown are, with their payloads, the events about these pods in the span, and every delegation of theirs and of their
`ancestry` up to its end, since the registry follows from those.
Of every other entry the bundle holds all but the payload, and the payload's digest, so that the whole chain can be
checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Self

from sqlalchemy import Connection, text

from podledger.core.entries import Entry
from podledger.core.errors import UsageError
from podledger.core.events import DELEGATIONS
from podledger.queries.gaps import Gap, gaps_until
from podledger.queries.lineage import lineage
from podledger.queries.moments import Moment, span
from podledger.store.log import read_head, row_checksum


class BundleScope(NamedTuple):
    """Of the ledger `ledger` the entries `since_seq` to `until_seq` about `pods` (None: all), and what they rest on.

    `pod_name` is the pod that was asked for, None for all.
    """

    ledger: str
    pod_name: str | None
    since_seq: int
    until_seq: int
    pods: frozenset[str] | None
    ancestry: frozenset[str]

    def shows(self, entry: Entry) -> bool:
        """Whether the payload of an entry is in the bundle."""
        if entry.kind in DELEGATIONS:
            return self.folds(entry.pod_name)
        return entry.seq >= self.since_seq and self.is_of(entry.pod_name)

    def folds(self, pod_name: str) -> bool:
        """Whether the registry of the bundle holds the pods of a name."""
        return self.is_of(pod_name) or pod_name in self.ancestry

    def is_of(self, pod_name: str) -> bool:
        """Whether a pod is one of the slice's."""
        return self.pods is None or pod_name in self.pods


class BundleRequest(NamedTuple):
    """What a bundle is asked for: a pod and all below it (None: all pods), from one moment up to another."""

    pod: str | None = None
    since: Moment = None
    until: Moment = None


class BundleRow(NamedTuple):
    """The row of a bundle that says what is in it; `rejected_count` lines of the ledger are not."""

    ledger: str
    pod_name: str | None
    since_seq: int
    until_seq: int
    pods: str | None
    ancestry: str
    rejected_count: int
    made_us: int
    texts_digest: str
    row_checksum: str

    @classmethod
    def of(cls, what: BundleScope, rejected_count: int, made_us: int, texts_digest: str) -> Self:
        """The row of a new bundle, sealed."""
        pods = None if what.pods is None else _names(what.pods)
        row = cls(*what[:4], pods, _names(what.ancestry), rejected_count, made_us, texts_digest, "")
        return row.with_checksum()

    def with_checksum(self) -> Self:
        """The same row with the row_checksum that its values have."""
        return self._replace(row_checksum=row_checksum(self[:-1]))

    def slice(self) -> BundleScope:
        """What of the ledger the bundle shows."""
        pods = None if self.pods is None else frozenset(json.loads(self.pods))
        return BundleScope(*self[:4], pods, frozenset(json.loads(self.ancestry)))


def _names(names: Iterable[str]) -> str:
    return json.dumps(sorted(names), ensure_ascii=False)


def bundle_scope(connection: Connection, ledger: str, wanted: BundleRequest) -> BundleScope:
    """The slice that is asked for.

    Raises:
        InvalidMomentError: a moment is not in the log.
        UsageError: nothing is known of the pod, or nothing is in the span.
    """
    pod = wanted.pod
    first, last = span(connection, ledger, wanted.since, wanted.until)
    if first > last:
        if not read_head(connection, ledger).head_seq:
            raise UsageError("the ledger is empty", hint="there is nothing to put into a bundle yet")
        raise UsageError("the span holds no entries", hint="give a --since before the --until, both in the log")
    if pod is None:
        return BundleScope(ledger, None, first, last, None, frozenset())
    pods = {pod, *_below(connection, ledger, pod, first, last)}
    known = "SELECT 1 FROM events WHERE ledger = :ledger AND pod_name = :pod AND seq <= :last LIMIT 1"
    if not connection.execute(text(known), {"ledger": ledger, "pod": pod, "last": last}).first():
        raise UsageError(
            f"the ledger holds nothing about a pod {pod!r} up to seq {last}", hint="see `podledger pods --all`"
        )
    return BundleScope(ledger, pod, first, last, frozenset(pods), _ancestry(connection, ledger, pods, last))


def _below(connection: Connection, ledger: str, pod: str, first: int, last: int) -> Iterator[str]:
    """The names of the pods that stood in the span and descend from one of that name."""
    query = text(
        "SELECT pod_name, from_seq FROM tenures "
        "WHERE ledger = :ledger AND from_seq <= :last AND (until_seq IS NULL OR until_seq > :first)"
    )
    rows = connection.execute(query, {"ledger": ledger, "first": first, "last": last})
    stood = {from_seq: name for name, from_seq in rows}
    lines = lineage(connection, ledger, last, [(name, from_seq) for from_seq, name in stood.items()])
    for from_seq, line in lines.items():
        if any(ancestor.pod_name == pod for ancestor in line):
            yield stood[from_seq]


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


def _ancestry(connection: Connection, ledger: str, pods: set[str], last: int) -> frozenset[str]:
    """The names from whose tenures, or delegations, those of `pods` came down."""
    values = {"ledger": ledger, "pods": _names(pods), "last": last}
    return frozenset(connection.execute(text(_ANCESTRY), values).scalars()) - pods


def known_gaps(connection: Connection, what: BundleScope) -> list[Gap]:
    """The gaps, from the start of the span on, in what was heard from those who spoke about the slice's pods."""
    query = text(
        "SELECT DISTINCT source, pod_name FROM events WHERE ledger = :ledger AND seq <= :last AND source IS NOT NULL"
    )
    rows = connection.execute(query, {"ledger": what.ledger, "last": what.until_seq})
    sources = {source for source, pod_name in rows if what.folds(pod_name)}
    found = gaps_until(connection, what.ledger, what.until_seq)
    return [gap for gap in found if gap.source in sources and gap.before_seq >= what.since_seq]
