"""Make a bundle: a part of a ledger in one read-only file, which podledger or SQLite can read elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from podledger.bundle.request import BundleRequest, gaps_in, scope_of
from podledger.bundle.scope import BundleRow, BundleScope, texts_digest
from podledger.bundle.tables import BUNDLE_ID, bundle, bundle_gaps, bundle_texts, metadata, withheld
from podledger.core.digest import NO_DIGEST, NO_PAYLOAD, payload_digest
from podledger.core.entries import Entry
from podledger.core.progress import Progress
from podledger.core.rules import fact_of
from podledger.store import log
from podledger.store.connections import alone, read_only
from podledger.store.driver import insert_rows
from podledger.store.files import placing
from podledger.store.log import Head
from podledger.store.projections import Fold, StateCache, save
from podledger.store.schema import prepare
from podledger.store.sqlite.files import finalize
from podledger.store.streams import Streams, stamp_numbers
from podledger.store.tables import events, ledgers

MODE: Final = 0o400
README: Final = """\
This file is a podledger bundle, for reading only. It shows {scope}.

The table events holds every entry of the log up to seq {until}. Where the payload is {{}}, it was withheld; the table
withheld holds its SHA-256, so that the whole chain of digests can be verified. The table bundle states the scope, and
the table bundle_gaps which reports are known to be missing.

To read it, run podledger --db FILE events, pods or verify, or open it in any SQLite browser.
Run no program that comes with this file, and none out of it. To verify it without podledger, take the verifier from
podledger's documentation (docs/ledger-format.md), or print it with podledger bundle --verifier.
To trust it, compare the digest at seq {until} with a note of the ledger that was kept elsewhere.
"""


class BundleResult(NamedTuple):
    """A finished bundle: its scope, how many entries, how many of them with payload, and how many known gaps."""

    scope: BundleScope
    entries: int
    shown: int
    gaps: int
    head_digest: str

    def as_json(self) -> dict[str, Any]:
        """Return the bundle as `bundle --json` prints it."""
        scope = self.scope
        return {
            "ledger": scope.ledger,
            "pod_name": scope.pod_name,
            "pods": None if scope.pods is None else sorted(scope.pods),
            "since_seq": scope.since_seq,
            "until_seq": scope.until_seq,
            "entries": self.entries,
            "shown": self.shown,
            "gaps": self.gaps,
            "head_digest": self.head_digest,
        }


def make_bundle(
    source: Path,
    ledger: str,
    target: str | os.PathLike[str],
    request: BundleRequest,
    *,
    now_us: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BundleResult:
    """Write a part of a ledger into the file `target`, which its owner may read and no user may write.

    `source` must hold the whole log; `now_us` is the time in microseconds since 1970.

    Raises:
        InvalidMomentError: a moment is not in the log.
        LedgerNotFoundError: there is no such ledger.
        StorageError: the file cannot be written, or exists and `overwrite` is false.
        UsageError: the log holds nothing about the pod, or the span is empty.
    """
    with read_only(source) as here, placing(target, source, overwrite=overwrite, mode=MODE) as temporary:
        head = log.read_head(here, ledger)
        scope = scope_of(here, ledger, request)
        prepare(temporary, create=True)
        with alone(temporary) as there:
            metadata.create_all(there)
            shown, last = _copy_log(here, there, scope, progress)
            insert_rows(there, ledgers, [_bundle_head(head, last)])
            gaps = gaps_in(here, scope)
            insert_rows(there, bundle_gaps, [(ledger, *gap) for gap in gaps])
            texts = sorted(_texts(scope).items())
            insert_rows(there, bundle_texts, texts)
            insert_rows(there, bundle, [BundleRow.of(scope, head.rejected_count, now_us, texts_digest(texts))])
        finalize(temporary, BUNDLE_ID)
    return BundleResult(scope, last.seq, shown, len(gaps), last.digest)


def _copy_log(here: Connection, there: Connection, scope: BundleScope, progress: Progress | None) -> tuple[int, Entry]:
    """Copy the log up to the end of the span. Return how many entries have their payload, and the last entry."""
    after, shown, cache = 0, 0, StateCache()
    while page := log.read_page(here, scope.ledger, log.Selection(after, scope.until_seq)):
        outside = [entry for entry in page if not scope.shows(entry.seq, entry.kind, entry.pod_name)]
        hidden = {entry.seq: payload_digest(entry.payload) for entry in outside}
        _project(there, scope, cache, page, after)
        insert_rows(there, events, [e._replace(payload=NO_PAYLOAD) if e.seq in hidden else e for e in page])
        insert_rows(there, withheld, [(scope.ledger, *item) for item in hidden.items()])
        after, shown, last = page[-1].seq, shown + len(page) - len(hidden), page[-1]
        if progress:
            progress(after, scope.until_seq)
    return shown, last


def _project(there: Connection, scope: BundleScope, cache: StateCache, page: list[Entry], after: int) -> None:
    """Apply a page of the log, which is not inserted yet, to the projections of the bundle's pods."""
    streams = Streams(there, scope.ledger, stamp_numbers(page))
    repeated = {entry.seq for entry in page if streams.is_repeated(entry)}
    facts = [
        fact_of(entry, scope.ledger, repeated=entry.seq in repeated) for entry in page if scope.projects(entry.pod_name)
    ]
    fold = Fold(cache.load(there, scope.ledger, {fact.pod_name for fact in facts}))
    for fact in facts:
        fold.take(fact)
    save(there, scope.ledger, fold.changed, fold.states, after)
    streams.save(page)
    cache.expect(fold.states)


def _bundle_head(head: Head, last: Entry) -> Head:
    """Return the ledger's row for the bundle, which sends nothing and holds no rejected lines."""
    ends = (last.seq, last.recorded_us, last.digest)
    return Head(head.name, head.created_us, None, None, *ends, 0, NO_DIGEST, 0, 0, 0, "").with_checksum()


def _texts(scope: BundleScope) -> dict[str, str]:
    return {"README": README.format(scope=scope.describe(), until=scope.until_seq)}
