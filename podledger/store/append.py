"""One transaction on the log: read the head, apply the rules, write the entries and their changes, move the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from podledger.core import rules, strict_json
from podledger.core.digest import chain_digest
from podledger.core.entries import Draft, Entry, Origin, Relation
from podledger.core.errors import ChainError, ProtocolError
from podledger.core.relaying import owed_report
from podledger.core.rules import Fact, State, fact_of, kind_judged
from podledger.store.driver import insert_rows
from podledger.store.log import Head, Rejection, append_rejections, filled_columns, read_head, write_head
from podledger.store.outbox_rows import append_outbox
from podledger.store.projections import Fold, StateCache, save
from podledger.store.streams import Streams, stamp_numbers
from podledger.store.tables import events

_UNSTAMPED = (None, None, None, None, None)
_NO_SENDER = (None, None, None, None)


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
    names.update(draft.speaking_pod for draft in drafts if draft.origin)
    fold = Fold(cache.load(connection, ledger, names, (head.head_digest, head.rebuilds)))
    now_us = max(now_us, head.head_us)
    numbers = [(draft.stamp.source, draft.stamp.sequence) for draft in drafts if draft.stamp]
    streams = Streams(connection, ledger, numbers) if numbers else None
    entries, owed = _fold_drafts(head, fold, streams, drafts, now_us)
    if owed:
        head = append_outbox(connection, head, owed, now_us)
    if rejections:
        head = append_rejections(connection, head, rejections, now_us)
    return _write(connection, before, head, fold, cache, streams, entries)


def restore_batch(
    connection: Connection, ledger: str, cache: StateCache, entries: Sequence[Entry]
) -> tuple[Appended, list[tuple[int, str]]]:
    """Append entries that another ledger exported, unchanged, each if it continues the chain.

    Returns the appended entries, and the refused ones: their positions in `entries`, with the reasons.
    """
    head = at = read_head(connection, ledger)
    names = {entry.pod_name for entry in entries}
    fold = Fold(cache.load(connection, ledger, names, (head.head_digest, head.rebuilds)))
    streams = Streams(connection, ledger, stamp_numbers(entries))
    kept: list[Entry] = []
    refused: list[tuple[int, str]] = []
    for position, entry in enumerate(entries):
        try:
            _check_continues(at, entry)
            fact = fact_of(entry, ledger, repeated=streams.is_repeated(entry))
            fold.take(fact, expected=entry.outcome if entry.rules == rules.VERSION else None)
        except (ChainError, ProtocolError) as error:
            refused.append((position, error.message))
            continue
        kept.append(entry)
        at = at._replace(head_seq=entry.seq, head_us=entry.recorded_us, head_digest=entry.digest)
    return _write(connection, head, head, fold, cache, streams, kept), refused


def _fold_drafts(
    head: Head, fold: Fold, streams: Streams | None, drafts: Sequence[Draft], now_us: int
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """Turn drafts into the entries that follow the head; also return the reports owed to the parent, with their seq."""
    entries: list[Entry] = []
    owed: list[tuple[int, str]] = []
    digest, ledger = head.head_digest, head.name
    for seq, draft in enumerate(drafts, head.head_seq + 1):
        kind, evidence, pod_name, payload, sender, stamp, delegation, speaker, relayed_kind, origin = draft
        if sender is not None and origin is not None:
            sender = sender._replace(relation=_relation(draft, origin, fold.state(draft.speaking_pod)))
        subject, repeated = None, False
        stamped: tuple[str | int | None, ...] = _UNSTAMPED
        if stamp is not None:
            subject = stamp.subject
            stamped = (stamp.id, stamp.source, stamp.sequence, stamp.sent_us, subject)
            repeated = streams is not None and streams.is_repetition(stamp.source, stamp.sequence, stamp.id)
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


def _relation(draft: Draft, origin: Origin, state: State) -> Relation | None:
    """Return the relation of a sender to the process of the pod that it speaks for, as the last spawn stated it.

    A late report of an earlier incarnation comes from an earlier process, of which nothing is known any more.
    """
    tenure = state.tenure
    if tenure is None or tenure.pid is None or tenure.start is None:
        return None
    subject = draft.stamp.subject if draft.stamp and draft.delegation is None else None
    if None not in (subject, tenure.incarnation) and subject != tenure.incarnation:
        return None
    return origin.relation_to(tenure.pid, tenure.start)


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
    connection: Connection,
    before: Head,
    head: Head,
    fold: Fold,
    cache: StateCache,
    streams: Streams | None,
    entries: list[Entry],
) -> Appended:
    """Write entries and their changes, and move the head to the last one."""
    insert_rows(connection, events, entries, filled_columns)
    save(connection, head.name, fold.changed, fold.states, before.head_seq)
    if streams is not None:
        streams.save(entries)
    if entries:
        last = entries[-1]
        head = head._replace(head_seq=last.seq, head_us=last.recorded_us, head_digest=last.digest)
    cache.expect(fold.states, (head.head_digest, head.rebuilds))
    return Appended(entries, write_head(connection, head), bool(fold.changed))
