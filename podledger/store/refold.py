"""The projections made anew from the log, aside: in temporary tables of one read-only connection.

A connection's temporary tables hide the tables of the same names, so the code that folds into the projections as events
are appended folds into these. What differs is then told (by `verify`) or put right (by `rebuild`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Table
from sqlalchemy.schema import CreateTable

from podledger import rules
from podledger.errors import ProtocolError
from podledger.events import EVIDENCE, Entry, Outcome, content_from
from podledger.rules import Fact
from podledger.store.driver import execute, fetch, insert_rows
from podledger.store.log import PAGE, read_head, write_head
from podledger.store.projections import Fold, StateCache, save
from podledger.store.recorder import fact_of
from podledger.store.tables import PROJECTIONS

FOLDED: Final = 10_000
"""How many events are folded before what they changed is written: most tenures that open among them close there too."""

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
        logged = []
        for entry in entries:
            try:
                facts.append(known_fact(entry))
            except ProtocolError as error:
                yield Problem("payload", entry.seq, error.message)
                continue
            logged.append(entry.outcome if entry.rules == rules.VERSION else None)
        until = facts[-1].seq if facts else self.seq
        outcomes = self.fold({fact.pod_name for fact in facts}, facts, until)
        for fact, before, now in zip(facts, logged, outcomes, strict=True):
            if before not in (None, now):
                yield Problem("outcome", fact.seq, f"logged as {before!r}, where the rules say {now!r}")

    def fold(self, names: Collection[str], facts: Iterable[Fact], until: int) -> list[Outcome]:
        """Fold the facts up to a seq, which are about pods of those names, into the temporary tables."""
        fold = Fold(self._cache.load(self._connection, self.ledger, names))
        outcomes = [fold.take(fact).outcome for fact in facts]
        save(self._connection, self.ledger, fold.changed, fold.states, self.seq)
        self._cache.advance(fold.states, None)
        self.seq = until
        return outcomes

    def differences(self) -> Iterator[Difference]:
        """Where the projection is not what the log says: in each table, what is too much, then what is missing."""
        for table in PROJECTIONS:
            missing = self._count(f"temp.{table.name} AS this WHERE {_not_in('main', table)}")
            live = self._count(f"main.{table.name} WHERE ledger = ?", self.ledger)
            if live + missing > self._count(f"temp.{table.name}"):
                yield from self._differences(table, "main", "temp", extra=True)
            if missing:
                yield from self._differences(table, "temp", "main", extra=False)

    def _count(self, source: str, *values: str) -> int:
        return int(fetch(self._connection, f"SELECT count(*) FROM {source}", values)[0][0])

    def _differences(self, table: Table, schema: str, other: str, *, extra: bool) -> Iterator[Difference]:
        columns = ", ".join(table.columns.keys())
        query = f"SELECT {columns} FROM {schema}.{table.name} AS this WHERE ledger = ? AND {_not_in(other, table)}"
        cursor = execute(self._connection, query, (self.ledger,))
        while rows := cursor.fetchmany(PAGE):
            yield from (Difference(table, row, extra) for row in rows)


def _not_in(schema: str, table: Table) -> str:
    """The condition that the row `this` is not, all columns alike, in a schema's table."""
    same = " AND ".join(f"other.{name} IS this.{name}" for name in table.columns.keys())  # noqa: SIM118 - no dict
    return f"NOT EXISTS (SELECT 1 FROM {schema}.{table.name} AS other WHERE {same})"


_RELEVANT: Final = """
SELECT seq, kind, evidence, pod_name, subject, source,
    CASE WHEN kind IN ('pod_spawned', 'scope_sub_delegated') THEN payload END
FROM events
WHERE ledger = ? AND seq > ? AND (
    kind NOT IN ('turn_ended', 'errored') OR subject IS NOT NULL OR pod_name IN (
        SELECT pod_name FROM events WHERE ledger = ? AND kind = 'pod_reclaimed'))
ORDER BY seq
"""


def catch_up(connection: Connection, refold: Refold, progress: Progress | None = None) -> None:
    """Fold what the log holds beyond what was folded."""
    head = read_head(connection, refold.ledger).head_seq
    relevant = execute(connection, _RELEVANT, (refold.ledger, refold.seq, refold.ledger))
    while rows := relevant.fetchmany(FOLDED):
        names = {pod_name for _, _, _, pod_name, *_ in rows}
        refold.fold(names, _facts(refold.ledger, rows), until=rows[-1][0])
        if progress:
            progress(refold.seq, head)
    refold.seq = head


def _facts(ledger: str, rows: Iterable[Sequence[Any]]) -> Iterator[Fact]:
    for seq, kind, evidence, pod_name, subject, source, delegation in rows:
        if kind not in EVIDENCE:
            raise ProtocolError(f"{kind!r} is no kind of event")
        content = None if delegation is None else content_from(kind, delegation, ledger)
        yield Fact(seq, kind, evidence, pod_name, subject, source, content)


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
    columns = [Column(c.name, c.type, primary_key=c.primary_key, nullable=c.nullable) for c in table.columns]
    return Table(table.name, MetaData(), *columns, prefixes=["TEMPORARY"], sqlite_strict=True)
