"""The scope of a bundle: which pods of a ledger it shows, over which span of the log.

A bundle shows the events about these pods in the span, with their payloads. It also shows every delegation of these
pods and of their ancestry up to the end of the span, because the registry follows from those. Of every other entry it
holds everything but the payload, and the payload's digest, so that the whole chain can be verified.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple, Self

from podledger.core.events import DELEGATIONS
from podledger.core.text import pluralize
from podledger.store.log import row_checksum


class BundleScope(NamedTuple):
    """The entries `since_seq` to `until_seq` of one ledger about `pods` (None: all), and their delegations.

    `pod_name` is the pod that the bundle was made for, None for all. `ancestry` names the pods from which `pods`
    descend.
    """

    ledger: str
    pod_name: str | None
    since_seq: int
    until_seq: int
    pods: frozenset[str] | None
    ancestry: frozenset[str]

    def shows(self, seq: int, kind: str, pod_name: str) -> bool:
        """Return whether the bundle holds the payload of an entry."""
        if kind in DELEGATIONS:
            return self.projects(pod_name)
        return seq >= self.since_seq and self.covers(pod_name)

    def projects(self, pod_name: str) -> bool:
        """Return whether the bundle's registry holds the pods of this name."""
        return self.covers(pod_name) or pod_name in self.ancestry

    def covers(self, pod_name: str) -> bool:
        """Return whether the pod is in the scope itself."""
        return self.pods is None or pod_name in self.pods

    def describe(self) -> str:
        """Return the scope in a few words."""
        pods = "all pods"
        if self.pods is not None:
            below = f" and {pluralize(len(self.pods) - 1, 'pod')} below it" if len(self.pods) > 1 else ""
            pods = f"the pod {self.pod_name!r}{below}"
        return f"{pods} of the ledger {self.ledger!r}, seq {self.since_seq} to {self.until_seq}"


class BundleRow(NamedTuple):
    """The row of the table `bundle`, which states the scope.

    `rejected_count` is the number of lines that the ledger had rejected; the bundle holds none of them.
    """

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
    def of(cls, scope: BundleScope, rejected_count: int, made_us: int, texts_digest: str) -> Self:
        """Return the row of a new bundle, with its checksum."""
        pods = None if scope.pods is None else _names(scope.pods)
        row = cls(*scope[:4], pods, _names(scope.ancestry), rejected_count, made_us, texts_digest, "")
        return row.with_checksum()

    def with_checksum(self) -> Self:
        """Return the same row with the checksum of its values."""
        return self._replace(row_checksum=row_checksum(self[:-1]))

    def scope(self) -> BundleScope:
        """Return the scope that the row states.

        Raises:
            TypeError, ValueError: it states none.
        """
        pods = None if self.pods is None else frozenset(json.loads(self.pods))
        return BundleScope(*self[:4], pods, frozenset(json.loads(self.ancestry)))


def _names(names: Iterable[str]) -> str:
    """Return names as a sorted JSON list."""
    return json.dumps(sorted(names), ensure_ascii=False)


def texts_digest(texts: Iterable[tuple[str, str]]) -> str:
    """Return the digest over the texts in a bundle, which are pairs of name and content, sorted by name."""
    return row_checksum([list(text) for text in texts])
