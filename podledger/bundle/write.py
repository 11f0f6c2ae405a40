"""Bundles: a slice of a ledger in one file, to be carried elsewhere, read there with podledger, and checked."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from podledger.bundle.scope import BundleRequest, BundleRow, BundleScope, bundle_scope, known_gaps
from podledger.core.events import NO_DIGEST, WITHHELD, Entry, payload_digest
from podledger.core.rules import fact_of
from podledger.store import log
from podledger.store.connections import BUNDLE_ID, alone, finalize, read_only
from podledger.store.driver import insert_rows
from podledger.store.expected_rows import Progress
from podledger.store.files import placing
from podledger.store.log import Head
from podledger.store.projections import Fold, StateCache, save
from podledger.store.schema import check_whole, prepare
from podledger.store.tables import bundle, bundle_gaps, bundle_metadata, bundle_texts, events, ledgers, withheld

MODE: Final = 0o400
README: Final = """\
This file is a podledger bundle: a slice of the ledger of {ledger!r}, for reading only.
It shows {pods}, from seq {since} to seq {until}.
Every entry of the log up to seq {until} is in the table events. Where the payload is {{}}, it was withheld, and the
table withheld holds its SHA-256, so that the whole chain of digests can be checked.
The table bundle says what is in it, bundle_gaps what is known to be missing from the record.
To read it: podledger --db FILE events, pods, verify and so on; or any SQLite browser.
To check it without podledger: take the text verifier.py out of the table bundle_texts, and run it on this file.
To trust it: compare the digest at seq {until} with a note that was kept elsewhere.
"""


class BundleResult(NamedTuple):
    """What went into a bundle: of how many entries, how many with their payload, and how many gaps are known."""

    what: BundleScope
    entries: int
    shown: int
    gaps: int
    head_digest: str

    def as_json(self) -> dict[str, Any]:
        """The bundle as `bundle --json` prints it."""
        what = self.what
        return {
            "ledger": what.ledger,
            "pod_name": what.pod_name,
            "pods": None if what.pods is None else sorted(what.pods),
            "since_seq": what.since_seq,
            "until_seq": what.until_seq,
            "entries": self.entries,
            "shown": self.shown,
            "gaps": self.gaps,
            "head_digest": self.head_digest,
        }


def make_bundle(
    source: Path,
    ledger: str,
    target: str | os.PathLike[str],
    wanted: BundleRequest,
    *,
    now_us: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BundleResult:
    """Write a slice of a ledger into the file `target`, which nobody may write and its owner alone may read.

    Raises:
        InvalidMomentError: a moment is not in the log.
        LedgerNotFoundError: there is no such ledger.
        StorageError: the file was not written: without `overwrite`, also where one is there already.
        UsageError: there is nothing to put in, or `source` is a bundle itself.
    """
    check_whole(source)
    with read_only(source) as here, placing(target, source, overwrite=overwrite, mode=MODE) as temporary:
        head = log.read_head(here, ledger)
        what = bundle_scope(here, ledger, wanted)
        prepare(temporary, create=True)
        with alone(temporary) as there:
            bundle_metadata.create_all(there)
            shown, last = _copy(here, there, what, progress)
            insert_rows(there, ledgers, [_head(head, last)])
            gaps = known_gaps(here, what)
            insert_rows(there, bundle_gaps, [(ledger, *gap) for gap in gaps])
            texts = sorted(_texts(what).items())
            insert_rows(there, bundle_texts, texts)
            insert_rows(there, bundle, [BundleRow.of(what, head.rejected_count, now_us, texts_digest(texts))])
        finalize(temporary, BUNDLE_ID)
    return BundleResult(what, last.seq, shown, len(gaps), last.digest)


def texts_digest(texts: list[tuple[str, str]]) -> str:
    """A digest over the texts in a bundle, each with its name, by name."""
    return log.row_checksum([list(text) for text in texts])


def _copy(here: Connection, there: Connection, what: BundleScope, progress: Progress | None) -> tuple[int, Entry]:
    """Copy the log up to the slice's end, what is outside of it without payloads, and fold what it shows."""
    after, shown, cache = 0, 0, StateCache()
    while page := log.read_page(here, what.ledger, log.Selection(after, what.until_seq)):
        outside = [entry for entry in page if not what.shows(entry)]
        hidden = {entry.seq: payload_digest(entry.payload) for entry in outside}
        insert_rows(there, events, [e._replace(payload=WITHHELD) if e.seq in hidden else e for e in page])
        insert_rows(there, withheld, [(what.ledger, *item) for item in hidden.items()])
        _fold(there, what, cache, page, after)
        after, shown, last = page[-1].seq, shown + len(page) - len(hidden), page[-1]
        if progress:
            progress(after, what.until_seq)
    return shown, last


def _fold(there: Connection, what: BundleScope, cache: StateCache, page: list[Entry], after: int) -> None:
    facts = [fact_of(entry, what.ledger) for entry in page if what.folds(entry.pod_name)]
    fold = Fold(cache.load(there, what.ledger, {fact.pod_name for fact in facts}))
    for fact in facts:
        fold.take(fact)
    save(there, what.ledger, fold.changed, fold.states, after)
    cache.expect(fold.states)


def _head(head: Head, last: Entry) -> Head:
    """The ledger's row as it is in the bundle, where nothing is to be sent and the rejected lines are not."""
    ends = (last.seq, last.recorded_us, last.digest)
    return Head(head.name, head.created_us, None, None, *ends, 0, NO_DIGEST, 0, 0, 0, "").with_checksum()


def _texts(what: BundleScope) -> dict[str, str]:
    pods = "all pods" if what.pods is None else f"the pod {what.pod_name!r} and {len(what.pods) - 1} below it"
    told = README.format(ledger=what.ledger, pods=pods, since=what.since_seq, until=what.until_seq)
    return {
        "README": told,
        "verifier.py": resources.files("podledger.bundle").joinpath("verifier.txt").read_text(),
    }
