"""Repetition: whether an emission was recorded before, by the source, the sequence and the id of its stamp."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, bindparam, func, select

from podledger.core.entries import Entry
from podledger.store.driver import HotStatement
from podledger.store.sqlite.engines import encode_list, text_list
from podledger.store.tables import events

SOURCES_A_QUERY: Final = 500
"""Of how many streams one query finds the highest sequence."""


class Repetitions:
    """Recognizes repeated emissions in a batch, compared with the log before it and with the batch itself.

    `sources` are those of the batch. A sequence above the highest that its stream has in the log cannot be a
    repetition, so only the others are looked up.
    """

    def __init__(self, connection: Connection, ledger: str, sources: Iterable[str]) -> None:
        self._connection = connection
        self._ledger = ledger
        self._highest = _highest_sequences(connection, ledger, sorted(set(sources)))
        self._in_batch: set[tuple[str, int, str]] = set()

    def add(self, source: str, sequence: int, stamp_id: str) -> bool:
        """Return whether this emission is a repetition, and remember it for the rest of the batch."""
        emission = (source, sequence, stamp_id)
        if emission in self._in_batch:
            return True
        self._in_batch.add(emission)
        return sequence <= self._highest.get(source, 0) and self._is_recorded(*emission)

    def add_entry(self, entry: Entry) -> bool:
        """Return whether an entry is a repetition, and remember it for the rest of the batch."""
        if entry.source is None or entry.sequence is None or entry.stamp_id is None:
            return False
        return self.add(entry.source, entry.sequence, entry.stamp_id)

    def _is_recorded(self, source: str, sequence: int, stamp_id: str) -> bool:
        key = {"ledger": self._ledger, "source": source, "sequence": sequence, "stamp_id": stamp_id}
        return bool(_RECORDED.fetch(self._connection, key))


def _highest_sequences(connection: Connection, ledger: str, sources: list[str]) -> dict[str, int]:
    highest: dict[str, int] = {}
    for start in range(0, len(sources), SOURCES_A_QUERY):
        some = encode_list(sources[start : start + SOURCES_A_QUERY])
        highest.update(
            (source, sequence) for source, sequence in _HIGHEST.fetch(connection, {"ledger": ledger, "sources": some})
        )
    return {source: sequence for source, sequence in highest.items() if sequence is not None}


def _highest() -> HotStatement:
    """Return the query for the highest sequence of each stream, one look into the index per stream."""
    source = text_list("sources").subquery("wanted").c.value
    newest = select(func.max(events.c.sequence)).where(
        events.c.ledger == bindparam("ledger"), events.c.source == source, events.c.source.is_not(None)
    )
    return HotStatement(select(source, newest.scalar_subquery()))


_HIGHEST: Final = _highest()
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
