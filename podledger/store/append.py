"""One transaction of the log: check the head, fold and insert the batch, write what changed, move the head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from podledger.core import rules
from podledger.core.digest import chain_digest
from podledger.core.entries import Draft, Entry
from podledger.core.errors import ChainError, ProtocolError
from podledger.core.rules import Fact, fact_of
from podledger.store.log import Head, Rejection, append_entries, append_rejections, read_head, write_head
from podledger.store.outbox_rows import append_outbox, relay_payload
from podledger.store.projections import Fold, StateCache, save

_UNSTAMPED = (None, None, None, None, None)
_NO_SENDER = (None, None, None)


class Appended(NamedTuple):
    """What a batch left: its entries, the head after it, and its fold: the states to cache, the tenures changed."""

    entries: list[Entry]
    head: Head
    fold: Fold

    @property
    def registry_changed(self) -> bool:
        """Whether a tenure was opened, closed or named."""
        return bool(self.fold.changed)


def append_batch(
    connection: Connection,
    ledger: str,
    cache: StateCache,
    drafts: Sequence[Draft],
    rejections: Sequence[Rejection],
    *,
    now_us: int,
) -> Appended:
    """Append events and rejected lines, with all that follows from them, in the connection's transaction.

    The cache takes in what `Appended.fold` holds once the transaction is committed, and not before.
    """
    before = read_head(connection, ledger)
    fold = _fold_for(connection, before, cache, (draft.pod_name for draft in drafts))
    now_us = max(now_us, before.head_us)
    entries, owed = _fold_drafts(before, fold, drafts, now_us)
    head = append_outbox(connection, before, owed, now_us)
    if rejections:
        head = append_rejections(connection, head, rejections, now_us)
    return _keep(connection, before, head, fold, entries)


def restore_batch(
    connection: Connection, ledger: str, cache: StateCache, entries: Sequence[Entry]
) -> tuple[Appended, list[tuple[int, str]]]:
    """Append entries that another ledger exported, each as it is, if it continues the chain.

    Returns what was recorded, and by position in `entries` the reasons for those that were not.
    """
    head = read_head(connection, ledger)
    fold = _fold_for(connection, head, cache, (entry.pod_name for entry in entries))
    kept: list[Entry] = []
    refused: list[tuple[int, str]] = []
    at = head
    for position, entry in enumerate(entries):
        try:
            _check_continues(at, entry)
            _fold_entry(fold, entry)
        except (ChainError, ProtocolError) as error:
            refused.append((position, error.message))
            continue
        kept.append(entry)
        at = at._replace(head_seq=entry.seq, head_us=entry.recorded_us, head_digest=entry.digest)
    return _keep(connection, head, head, fold, kept), refused


def _fold_for(connection: Connection, head: Head, cache: StateCache, names: Iterable[str]) -> Fold:
    cache.at((head.head_seq, head.rebuilds))
    return Fold(cache.load(connection, head.name, names))


def _fold_drafts(
    head: Head, fold: Fold, drafts: Sequence[Draft], now_us: int
) -> tuple[list[Entry], list[tuple[int, str]]]:
    entries: list[Entry] = []
    owed: list[tuple[int, str]] = []
    digest, ledger = head.head_digest, head.name
    for seq, draft in enumerate(drafts, head.head_seq + 1):
        kind, evidence, pod_name, payload, sender, stamp, content = draft
        subject = stamp.subject if stamp else None
        source = stamp.source if stamp else None
        outcome = fold.take(Fact(seq, kind, evidence, pod_name, subject, source, content)).outcome
        stamped = (stamp.id, source, stamp.sequence, stamp.sent_us, subject) if stamp else _UNSTAMPED
        fields = (
            *(ledger, seq, now_us, evidence, kind, pod_name, payload),
            *(sender or _NO_SENDER),
            *stamped,
            *(outcome, rules.VERSION),
        )
        digest = chain_digest(digest, fields)
        entries.append(Entry._make((*fields, digest)))
        if content is not None and head.parent_socket and (told := relay_payload(draft, outcome, ledger)):
            owed.append((seq, told))
    return entries, owed


def _check_continues(head: Head, entry: Entry) -> None:
    if entry.ledger != head.name:
        raise ChainError(f"it is of the ledger {entry.ledger!r}, not of {head.name!r}")
    if entry.seq != head.head_seq + 1:
        raise ChainError(f"its seq is {entry.seq}, and the log goes on at {head.head_seq + 1}")
    if entry.recorded_us < head.head_us:
        raise ChainError("it was recorded before the entry that it follows")
    if entry.digest != chain_digest(head.head_digest, entry):
        raise ChainError("its digest does not continue the chain")


def _fold_entry(fold: Fold, entry: Entry) -> None:
    decision = fold.weigh(fact_of(entry, entry.ledger))
    if entry.rules == rules.VERSION and entry.outcome != decision.outcome:
        raise ChainError(f"its outcome is {entry.outcome!r}, where the rules say {decision.outcome!r}")
    fold.keep(entry.pod_name, decision)


def _keep(connection: Connection, before: Head, head: Head, fold: Fold, entries: list[Entry]) -> Appended:
    append_entries(connection, entries)
    save(connection, head.name, fold.changed, fold.states, before.head_seq)
    if entries:
        last = entries[-1]
        head = head._replace(head_seq=last.seq, head_us=last.recorded_us, head_digest=last.digest)
    return Appended(entries, write_head(connection, head), fold)
