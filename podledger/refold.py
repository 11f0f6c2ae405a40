"""The projections made anew from the log, aside: in temporary tables of one read-only connection.

A connection's temporary tables hide the tables of the same names, so the code that folds into the projections as events
are appended folds into these. What differs is then told (by `verify`) or put right (by `rebuild`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Table
from sqlalchemy.schema import CreateTable

from podledger import rules
from podledger.database import insert_rows
from podledger.errors import ProtocolError
from podledger.events import EVIDENCE, Entry, Outcome
from podledger.log import PAGE, read_head, write_head
from podledger.projections import Fold, StateCache, save
from podledger.recorder import fact_of
from podledger.rules import Fact
from podledger.tables import PROJECTIONS

Progress = Callable[[int, int], None]
"""Told how many events of how many are done."""


class Problem(NamedTuple):
    """Something that `verify` found: which check, at which entry if it is one, and what."""

    check: str
    seq: int | None
    detail: str


class Difference(NamedTuple):
    """A row that the projection holds and should not (`extra`), or should hold and does not."""

    table: Table
    row: tuple[Any, ...]
    extra: bool

    @property
    def key(self) -> tuple[Any, ...]:
        """The row's key."""
        return self.row[: len(self.table.primary_key)]


def known_fact(entry: Entry) -> Fact:
    """What the rules look at of an entry that may have been altered.

    Raises:
        ProtocolError: its kind is none, or its payload is not what its kind says.
    """
    if entry.kind not in EVIDENCE:
        raise ProtocolError(f"{entry.kind!r} is no kind of event")
    return fact_of(entry)


class Refold:
    """One ledger's projections, folded anew."""

    def __init__(self, connection: Connection, ledger: str) -> None:
        self._connection = connection
        self.ledger = ledger
        self._cache = StateCache()
        self.seq = 0
        for table in PROJECTIONS:
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS temp.{table.name}")
            connection.execute(CreateTable(_temporary(table)))

    def take(self, entries: Iterable[Entry]) -> Iterator[Problem]:
        """Fold entries; what the rules would now decide otherwise is a problem."""
        facts = []
        outcomes = {}
        for entry in entries:
            try:
                facts.append(known_fact(entry))
            except ProtocolError as error:
                yield Problem("payload", entry.seq, error.message)
                continue
            if entry.rules == rules.VERSION:
                outcomes[entry.seq] = entry.outcome
        for fact, outcome in self.fold(facts):
            logged = outcomes.get(fact.seq, outcome)
            if logged != outcome:
                yield Problem("outcome", fact.seq, f"logged as {logged!r}, where the rules say {outcome!r}")

    def fold(self, facts: list[Fact]) -> list[tuple[Fact, Outcome]]:
        """Fold facts, in the order of their seqs, into the temporary tables."""
        fold = Fold(self._cache.load(self._connection, self.ledger, {fact.pod_name for fact in facts}))
        decided = [(fact, fold.take(fact).outcome) for fact in facts]
        save(self._connection, self.ledger, fold.changed, fold.states, self.seq)
        self._cache.advance(fold.states, None)
        if facts:
            self.seq = facts[-1].seq
        return decided

    def differences(self) -> Iterator[Difference]:
        """Where the projection is not what the log says."""
        for table in PROJECTIONS:
            columns = ", ".join(column.name for column in table.columns)
            live = f"SELECT {columns} FROM main.{table.name} WHERE ledger = ?"
            anew = f"SELECT {columns} FROM temp.{table.name} WHERE ledger = ?"
            for query, extra in ((f"{live} EXCEPT {anew}", True), (f"{anew} EXCEPT {live}", False)):
                for row in self._connection.exec_driver_sql(query, (self.ledger, self.ledger)).yield_per(PAGE):
                    yield Difference(table, tuple(row), extra)


def relevant_facts(connection: Connection, ledger: str, after: int) -> Iterator[list[Fact]]:
    """The events after one seq that can change a projection, a page at a time.

    A turn or an error changes nothing but in two cases: its stamp names an incarnation, or its pod was reclaimed.
    """
    head = read_head(connection, ledger).head_seq
    while after < head:
        until = min(after + 10 * PAGE, head)
        values = (ledger, after, until, ledger)
        yield [known_fact(Entry(*row)) for row in connection.exec_driver_sql(_RELEVANT, values)]
        after = until


_RELEVANT = """
SELECT * FROM events
WHERE ledger = ? AND seq > ? AND seq <= ? AND (
    kind NOT IN ('turn_ended', 'errored') OR subject IS NOT NULL OR pod_name IN (
        SELECT pod_name FROM events WHERE ledger = ? AND kind = 'pod_reclaimed'))
ORDER BY seq
"""


def catch_up(connection: Connection, refold: Refold, progress: Progress | None = None) -> None:
    """Fold what the log holds beyond what was folded."""
    head = read_head(connection, refold.ledger).head_seq
    for facts in relevant_facts(connection, refold.ledger, refold.seq):
        refold.fold(facts)
        if progress:
            progress(refold.seq, head)
    refold.seq = head


def put_right(connection: Connection, refold: Refold) -> int:
    """Make the projection what the refold says, in the writer's transaction; how many rows that took."""
    changes = 0
    for difference in refold.differences():
        table = difference.table
        if difference.extra:
            keys = " AND ".join(f"{column.name} = ?" for column in table.primary_key)
            connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE {keys}", difference.key)
        else:
            insert_rows(connection, table, [difference.row])
        changes += 1
    head = read_head(connection, refold.ledger)
    write_head(connection, head._replace(rebuilds=head.rebuilds + 1))
    return changes


def _temporary(table: Table) -> Table:
    columns = [
        Column(column.name, column.type, primary_key=column.primary_key, nullable=column.nullable, autoincrement=False)
        for column in table.columns
    ]
    return Table(table.name, MetaData(), *columns, prefixes=["TEMPORARY"], sqlite_strict=True)
