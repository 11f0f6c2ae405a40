"""Hot statements: SQLAlchemy Core that is compiled once and then runs on the driver, in the connection's transaction.

The code that opens a connection begins its transaction: the driver does not begin one by itself.

SQLAlchemy adds 20 to 100 µs to each statement, most of the time of a small one. So the statements of every append and
of the common queries run here; all others run as Core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ClauseElement, Connection, Dialect, Table
from sqlalchemy.sql.compiler import SQLCompiler

from podledger.core.errors import DAMAGED_HINT, DamagedError
from podledger.store.sqlite import engines
from podledger.store.sqlite.bounded import PAGE_BYTES, row_bytes

ROWS_A_STATEMENT: Final = 50
"""How many rows of a long run one statement inserts. The driver releases the interpreter's lock between two of its
steps; in a process with a busy event loop, waiting to get it back took longer than the rows. SQLite may bind 999
values."""

PAGE: Final = 500
"""The most rows that are held in memory while many are read: the garbage collector rarely sees one twice."""

Row = Sequence[Any]
Positions = tuple[int, ...]
R = TypeVar("R", bound=Iterable[Any])


class _Compiled(NamedTuple):
    """A statement's text in one dialect, its own values, and the names of all values in the order of their marks."""

    text: str
    constants: Mapping[str, Any]
    order: Sequence[str] | None


class HotStatement:
    """A Core statement that runs as its compiled text on the driver.

    It is compiled once per dialect, so it may hold no parameter that expands: write `in_` with one `bindparam` a value.
    `columns` are those that an INSERT or UPDATE sets.
    """

    def __init__(self, statement: ClauseElement, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def fetch(self, connection: Connection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run the statement; return all its rows."""
        compiled = self._for(connection.dialect)
        return engines.fetch(connection, compiled.text, _bound(compiled, values))

    def page(self, connection: Connection, values: Mapping[str, Any], size: int) -> list[Row]:
        """Run the statement; return its first rows, at most `size`: fewer, but at least one, if they are large."""
        compiled = self._for(connection.dialect)
        return engines.fetch_page(connection, compiled.text, _bound(compiled, values), size)

    def pages(self, connection: Connection, values: Mapping[str, Any]) -> Iterator[Row]:
        """Run the statement on a sync connection; yield its rows, with a page in memory at a time."""
        compiled = self._for(connection.dialect)
        cursor = connection.connection.cursor()
        cursor.execute(compiled.text, _bound(compiled, values))
        return chain.from_iterable(iter(lambda: cursor.fetchmany(PAGE), []))

    def run(self, connection: Connection, values: Mapping[str, Any]) -> None:
        """Run the statement on a sync connection."""
        compiled = self._for(connection.dialect)
        connection.connection.cursor().execute(compiled.text, _bound(compiled, values))

    def run_many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run the statement on a sync connection, once for each of `rows`."""
        compiled = self._for(connection.dialect)
        bound = [_bound(compiled, values) for values in rows]
        connection.connection.cursor().executemany(compiled.text, bound)  # type: ignore[arg-type]

    def text(self, connection: Connection) -> str:
        """Return the statement as the connection's driver takes it."""
        return self._for(connection.dialect).text

    def _for(self, dialect: Dialect) -> _Compiled:
        found = self._compiled.get(dialect.name)
        if found is None:
            compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)
            assert isinstance(compiled, SQLCompiler)  # noqa: S101 - a statement that compiles to DDL cannot be hot
            order = compiled.positiontup if compiled.positional else None
            found = self._compiled[dialect.name] = _Compiled(str(compiled), compiled.params, order)
        return found


def _bound(compiled: _Compiled, values: Mapping[str, Any]) -> Row | Mapping[str, Any]:
    """Return the values as the driver takes them: in order, or by name."""
    named = {**compiled.constants, **values}
    return named if compiled.order is None else [named[name] for name in compiled.order]


def advancing(rows: list[Row], position: int, after: int) -> list[Row]:
    """Return a page of rows that were read after the number `after`, which they hold at `position`.

    Raises:
        DamagedError: they do not go on after it, as in an index without order, so the next page would never end.
    """
    if rows and not (isinstance(rows[-1][position], int) and rows[-1][position] > after):
        raise DamagedError(f"the rows after number {after} are out of order", hint=DAMAGED_HINT)
    return rows


def batches(rows: Iterable[R], size: int) -> Iterator[list[R]]:
    """Yield rows in batches: at most `size`, and none after those that take a page's bytes."""
    batch: list[R] = []
    taken = 0
    for row in rows:
        batch.append(row)
        taken += row_bytes(row)
        if len(batch) == size or taken > PAGE_BYTES:
            yield batch
            batch, taken = [], 0
    if batch:
        yield batch


def held(row: Row) -> Positions:
    """Return the positions at which a row holds a value."""
    return tuple([position for position, value in enumerate(row) if value is not None])


def insert_rows(
    connection: Connection,
    table: Table,
    rows: Iterable[Row],
    held: Callable[[Any], Positions] = held,
    *,
    replaced: tuple[str, ...] = (),
) -> None:
    """Insert rows whose values are in the order of the table's columns.

    `replaced` are the columns to update where a row with the same key exists; by default, that is an error.

    The statement names only the columns that `held` returns. Python's driver takes longer to bind a null than to bind
    five other values, and longer for a named tuple than for an exact one.
    """
    cursor = connection.connection.cursor()
    for positions, run in groupby(rows, held):
        pick = itemgetter(*positions)
        one = _insertion(table, positions, replaced).text(connection)
        while len(some := list(islice(run, ROWS_A_STATEMENT))) == ROWS_A_STATEMENT:
            cursor.execute(_repeated(one, ROWS_A_STATEMENT), tuple(chain.from_iterable(map(pick, some))))
        cursor.executemany(one, map(pick, some))  # type: ignore[arg-type]


@lru_cache
def _insertion(table: Table, positions: Positions, replaced: tuple[str, ...]) -> HotStatement:
    columns = table.columns.keys()
    return HotStatement(engines.insertion(table, replaced), [columns[position] for position in positions])


def _repeated(insertion: str, rows: int) -> str:
    """Return the statement that inserts one row, extended to several rows."""
    start, values, rest = insertion.partition("VALUES ")
    marks, end, conflict = rest.partition(")")
    return start + values + ", ".join([marks + end] * rows) + conflict
