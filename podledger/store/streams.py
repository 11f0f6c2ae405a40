"""Streams as rows: the runs of sequence numbers that arrived from each sender, and which emissions are repetitions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Final

from sqlalchemy import BigInteger, Connection, Text, and_, bindparam, delete, func, select

from podledger.core import strict_json
from podledger.core.entries import Entry
from podledger.core.streams import Part, Run, names_sender, unbroken
from podledger.store.driver import HotStatement, insert_rows
from podledger.store.sqlite.engines import row_list
from podledger.store.tables import events, streams

Number = tuple[str, int]
"""A source and a sequence number."""


class Streams:
    """The streams of a batch: recognizes repeated emissions, and keeps which numbers have arrived.

    `numbers` are those of the batch. Of each stream only the runs that hold or touch one of them are read, so that a
    sender whose numbers leave many gaps costs no more than others. A number outside of them cannot be a repetition.
    """

    def __init__(self, connection: Connection, ledger: str, numbers: Iterable[Number]) -> None:
        self._connection = connection
        self._ledger = ledger
        self._runs = _touching(connection, ledger, numbers)
        self._in_batch: set[tuple[str, int, str]] = set()

    def is_repetition(self, source: str, sequence: int, stamp_id: str) -> bool:
        """Return whether the log or the batch holds this emission, and remember it for the rest of the batch."""
        emission = (source, sequence, stamp_id)
        if emission in self._in_batch:
            return True
        self._in_batch.add(emission)
        return self._has_arrived(source, sequence) and self._is_recorded(*emission)

    def is_repeated(self, entry: Entry) -> bool:
        """Return whether an entry is a repetition, and remember it for the rest of the batch."""
        if entry.source is None or entry.sequence is None or entry.stamp_id is None:
            return False
        return self.is_repetition(entry.source, entry.sequence, entry.stamp_id)

    def save(self, entries: Iterable[Entry]) -> None:
        """Add the numbers of the batch's entries to the stored runs."""
        stored = list(chain.from_iterable(self._runs.values()))
        before = {(run.source, run.first): run for run in stored}
        rows = [
            (self._ledger, *run)
            for run in unbroken(sorted(chain(stored, _parts(entries)), key=_START))
            if before.pop((run.source, run.first), None) != run
        ]
        if before:  # these runs were joined with others
            keys = ({"ledger": self._ledger, "source": source, "first": first} for source, first in before)
            _REMOVE.run_many(self._connection, keys)
        insert_rows(self._connection, streams, rows, replaced=_REPLACED)

    def _has_arrived(self, source: str, sequence: int) -> bool:
        runs = self._runs.get(source)
        if not runs or sequence > runs[-1].last:
            return False
        position = bisect_right(runs, sequence, key=_FIRST)
        return position > 0 and sequence <= runs[position - 1].last

    def _is_recorded(self, source: str, sequence: int, stamp_id: str) -> bool:
        key = {"ledger": self._ledger, "source": source, "sequence": sequence, "stamp_id": stamp_id}
        return bool(_RECORDED.fetch(self._connection, key))


def stamp_numbers(entries: Iterable[Entry]) -> list[Number]:
    """Return the numbers of the stamped ones of some entries."""
    return [(entry.source, entry.sequence) for entry in entries if entry.source and entry.sequence]


def _parts(entries: Iterable[Entry]) -> Iterator[Part]:
    """Yield each stamped entry as a run of one number."""
    for entry in entries:
        source, sequence, seq = entry.source, entry.sequence, entry.seq
        if source is not None and sequence is not None:
            named = names_sender(entry.kind, entry.relayed_kind, entry.speaker, entry.subject)
            yield source, sequence, sequence, seq, seq, entry.pod_name if named else None


def _touching(connection: Connection, ledger: str, numbers: Iterable[Number]) -> dict[str, Sequence[Run]]:
    """Return the stored runs that hold or touch one of the numbers, by source, in the order of their numbers."""
    wanted = strict_json.dumps(_spans(sorted(set(numbers))))
    rows = _TOUCHING.fetch(connection, {"ledger": ledger, "wanted": wanted})
    found = {Run._make(row) for row in rows if row[0] is not None}
    runs: dict[str, list[Run]] = {}
    for run in sorted(found, key=_START):
        runs.setdefault(run.source, []).append(run)
    return dict(runs)


def _spans(numbers: Iterable[Number]) -> list[list[str | int]]:
    """Return the spans of sorted numbers that follow each other: source, first and last."""
    spans: list[list[str | int]] = []
    before: Number = ("", 0)
    for number in numbers:
        source, sequence = number
        if source == before[0] and sequence == before[1] + 1:
            spans[-1][2] = sequence
        else:
            spans.append([source, sequence, sequence])
        before = number
    return spans


def _touching_query() -> HotStatement:
    """Return the query for the runs that hold or touch one of some spans.

    These are the last one that begins before the span, and those that begin within it or directly after it. They are no
    more than the span has numbers, and two. The join is an outer one so that SQLite begins with the spans; a span
    without a run gives a row of nulls.
    """
    spans = row_list("wanted", source=Text, first=BigInteger, last=BigInteger).subquery("spans")
    wanted = spans.c
    below = streams.alias("below").c
    nearest = select(func.max(below.first)).where(
        below.ledger == bindparam("ledger"), below.source == wanted.source, below.first <= wanted.first
    )
    run = streams.c
    touching = and_(
        run.ledger == bindparam("ledger"),
        run.source == wanted.source,
        run.first >= func.coalesce(nearest.scalar_subquery(), wanted.first),
        run.first <= wanted.last + 1,
    )
    return HotStatement(select(*(run[field] for field in Run._fields)).select_from(spans.outerjoin(streams, touching)))


_START: Final = itemgetter(0, 1)
_FIRST: Final = itemgetter(1)
_REPLACED: Final = ("last", "first_seq", "last_seq", "pod_name")
_TOUCHING: Final = _touching_query()
_REMOVE: Final = HotStatement(
    delete(streams).where(
        streams.c.ledger == bindparam("ledger"),
        streams.c.source == bindparam("source"),
        streams.c.first == bindparam("first"),
    )
)
_RECORDED: Final = HotStatement(
    select(events.c.seq)
    .where(
        events.c.ledger == bindparam("ledger"),
        events.c.source == bindparam("source"),
        events.c.source.is_not(None),
        events.c.sequence == bindparam("sequence"),
        events.c.stamp_id == bindparam("stamp_id"),
    )
    .limit(1)
)
