"""One transaction on the log: read the head, apply the rules, write the entries and their changes, move the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from podledger.core import rules, strict_json
from podledger.core.digest import chain_digest
from podledger.core.entries import Draft, Entry
from podledger.core.errors import ChainError, ProtocolError
from podledger.core.relaying import owed_report
from podledger.core.rules import Fact, fact_of, kind_judged
from podledger.store.driver import insert_rows
from podledger.store.log import Head, Rejection, append_rejections, filled_columns, read_head, write_head
from podledger.store.outbox_rows import append_outbox
from podledger.store.projections import Fold, StateCache, save
from podledger.store.repetition import Repetitions
from podledger.store.tables import events

_UNSTAMPED = (None, None, None, None, None)
_NO_SENDER = (None, None, None)


class Appended(NamedTuple):
    """The result of a transaction: its entries, the head after it, and whether a tenure was opened, closed or named."""

    entries: list[Entry]
    head: Head
    registry_changed: bool


def append_batch(
    connection: Connection,
    ledger: str,
    cache: StateCache,
    drafts: Sequence[Draft],
    rejections: Sequence[Rejection],
    *,
    now_us: int,
) -> Appended:
    """Append events and rejected lines, with everything that follows from them, in the connection's transaction.

    `now_us` is the time in microseconds since 1970. If the clock was set back, the head's time is used.
    """
    before = head = read_head(connection, ledger)
    names = {draft.pod_name for draft in drafts}
    fold = Fold(cache.load(connection, ledger, names, (head.head_digest, head.rebuilds)))
    now_us = max(now_us, head.head_us)
    sources = [draft.stamp.source for draft in drafts if draft.stamp]
    repetitions = Repetitions(connection, ledger, sources) if sources else None
    entries, owed = _fold_drafts(head, fold, repetitions, drafts, now_us)
    if owed:
        head = append_outbox(connection, head, owed, now_us)
    if rejections:
        head = append_rejections(connection, head, rejections, now_us)
    return _write(connection, before, head, fold, cache, entries)


def restore_batch(
    connection: Connection, ledger: str, cache: StateCache, entries: Sequence[Entry]
) -> tuple[Appended, list[tuple[int, str]]]:
    """Append entries that another ledger exported, unchanged, each if it continues the chain.

    Returns the appended entries, and the refused ones: their positions in `entries`, with the reasons.
    """
    head = at = read_head(connection, ledger)
    names = {entry.pod_name for entry in entries}
    fold = Fold(cache.load(connection, ledger, names, (head.head_digest, head.rebuilds)))
    repetitions = Repetitions(connection, ledger, [entry.source for entry in entries if entry.source])
    kept: list[Entry] = []
    refused: list[tuple[int, str]] = []
    for position, entry in enumerate(entries):
        try:
            _check_continues(at, entry)
            fact = fact_of(entry, ledger, repeated=repetitions.add_entry(entry))
            fold.take(fact, expected=entry.outcome if entry.rules == rules.VERSION else None)
        except (ChainError, ProtocolError) as error:
            refused.append((position, error.message))
            continue
        kept.append(entry)
        at = at._replace(head_seq=entry.seq, head_us=entry.recorded_us, head_digest=entry.digest)
    return _write(connection, head, head, fold, cache, kept), refused


def _fold_drafts(
    head: Head, fold: Fold, repetitions: Repetitions | None, drafts: Sequence[Draft], now_us: int
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """Turn drafts into the entries that follow the head; also return the reports owed to the parent, with their seq."""
    entries: list[Entry] = []
    owed: list[tuple[int, str]] = []
    digest, ledger = head.head_digest, head.name
    for seq, draft in enumerate(drafts, head.head_seq + 1):
        kind, evidence, pod_name, payload, sender, stamp, delegation, speaker, relayed_kind = draft
        subject, repeated = None, False
        stamped: tuple[str | int | None, ...] = _UNSTAMPED
        if stamp is not None:
            subject = stamp.subject
            stamped = (stamp.id, stamp.source, stamp.sequence, stamp.sent_us, subject)
            repeated = repetitions is not None and repetitions.add(stamp.source, stamp.sequence, stamp.id)
        judged = kind_judged(kind, relayed_kind)
        outcome, _, changed = fold.take(Fact(seq, judged, evidence, pod_name, subject, delegation, repeated))
        fields = (
            *(ledger, seq, now_us, evidence, kind, pod_name, payload),
            *(sender or _NO_SENDER),
            *stamped,
            *(speaker, relayed_kind, outcome, rules.VERSION),
        )
        digest = chain_digest(digest, fields)
        entry = Entry._make((*fields, digest))
        entries.append(entry)
        if changed and head.parent_socket and (report := owed_report(entry, changed)):
            owed.append((seq, strict_json.dumps(report)))
    return entries, owed


def _check_continues(head: Head, entry: Entry) -> None:
    """Check that an entry is the one that follows the head.

    Raises:
        ChainError: it is not.
    """
    if entry.ledger != head.name:
        raise ChainError(f"it belongs to the ledger {entry.ledger!r}, not to {head.name!r}")
    if entry.seq != head.head_seq + 1:
        raise ChainError(f"its seq is {entry.seq}, but the log continues at {head.head_seq + 1}")
    if entry.recorded_us < head.head_us:
        raise ChainError("it was recorded before the entry that it follows")
    if entry.digest != chain_digest(head.head_digest, entry):
        raise ChainError("its digest does not continue the chain")


def _write(
    connection: Connection, before: Head, head: Head, fold: Fold, cache: StateCache, entries: list[Entry]
) -> Appended:
    """Write entries and their changes, and move the head to the last one."""
    insert_rows(connection, events, entries, filled_columns)
    save(connection, head.name, fold.changed, fold.states, before.head_seq)
    if entries:
        last = entries[-1]
        head = head._replace(head_seq=last.seq, head_us=last.recorded_us, head_digest=last.digest)
    cache.expect(fold.states, (head.head_digest, head.rebuilds))
    return Appended(entries, write_head(connection, head), bool(fold.changed))
