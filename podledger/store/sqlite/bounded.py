"""Connections that a hostile database can neither keep busy without end nor fill with more than a bound.

Every connection that only reads is one of these, from its first statement. The bounds are far above the needs of a
ledger.
"""

from __future__ import annotations

import marshal
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from sys import getsizeof
from typing import Any, Final, TypeVar

from podledger.core.errors import TimeLimitError

MAX_ROW_BYTES: Final = 32 << 20
"""The longest value, and the longest row, that is written or read. An event has at most half of this."""

MAX_ANSWER_BYTES: Final = 128 << 20
"""How much memory the rows of one answer may take that is held as a whole."""

PAGE_BYTES: Final = 8 << 20
"""After how much memory a page of rows ends, whatever the number of its rows."""

BLOCK: Final = 4
"""How many rows are fetched before their memory is counted: so few that a bound is passed by little."""

MOST_EXPANSION: Final = 6
"""How many times the bytes that `marshal` writes a value takes in memory: a number 28 for 5, a wide text 4 for 1.

To write a row takes a tenth of the time of asking each value for its size, which is done only near a bound.
"""

MAX_HEAP_BYTES: Final = 256 << 20
"""How much memory SQLite itself may take in a process that runs one command."""

LEAST_S: Final = 30.0
S_PER_BYTE: Final = 0.5 / (1 << 20)
"""How long one statement may run: this, and half a second more for each MiB of the file."""

_STEPS: Final = 500_000
"""How many steps of SQLite pass between two checks of the clock, each of which takes the interpreter's lock."""

_LIMITS: Final = {sqlite3.SQLITE_LIMIT_LENGTH: MAX_ROW_BYTES, sqlite3.SQLITE_LIMIT_SQL_LENGTH: 256 << 10}

T = TypeVar("T")


def row_bytes(row: Iterable[Any]) -> int:
    """Return how much memory the values of a row take."""
    return sum(map(getsizeof, row))


class AnswerTooLargeError(sqlite3.DataError):
    """Raised if the rows of an answer take more memory than `MAX_ANSWER_BYTES`."""

    sqlite_errorname = "SQLITE_TOOBIG"


class _Clock:
    """The time limit of the statement that is running on one connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.started: float | None = None
        self.ran_out = False

    def check(self) -> bool:
        """Return whether the running statement must stop; once one did, so must every later one."""
        if self.started is not None and time.monotonic() - self.started > self.allowed_s():
            self.ran_out = True
        return self.ran_out

    def allowed_s(self) -> float:
        """Return how long a statement may take. A file with holes counts without them."""
        try:
            return LEAST_S + S_PER_BYTE * 512 * os.stat(self._path).st_blocks  # noqa: PTH116 - a callback of SQLite's
        except OSError:
            return LEAST_S

    def error(self) -> TimeLimitError:
        """Return the error about the statement that was stopped."""
        reason = f"{self._path}: a query did not end within {self.allowed_s():,.0f} s"
        return TimeLimitError(reason, hint="the file may be damaged or made to do this: run `podledger doctor`")


class BoundedCursor(sqlite3.Cursor):
    """A cursor whose statement is limited in time, and whose rows are limited in memory."""

    connection: BoundedConnection
    _spent_s = 0.0

    def execute(self, sql: str, parameters: Any = (), /) -> BoundedCursor:
        """Run a statement; its time limit counts from here, without the time between two fetches."""
        self._spent_s = 0.0
        self._timed(super().execute, sql, parameters)
        return self

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        return self._timed(super().fetchone)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows: at most `size`, and none after those that take `PAGE_BYTES`."""
        return self._timed(self._take, self.arraysize if size is None else size, PAGE_BYTES)

    def fetchall(self) -> list[Any]:
        """Return all rows.

        Raises:
            AnswerTooLargeError: they take more than `MAX_ANSWER_BYTES`.
        """
        rows = self._timed(self._take, None, MAX_ANSWER_BYTES)
        if self.fetchone() is not None:
            raise AnswerTooLargeError(f"an answer takes more than {MAX_ANSWER_BYTES >> 20} MiB")
        return rows

    def _take(self, size: int | None, most_bytes: int) -> list[Any]:
        rows: list[Any] = []
        fetch, at_most, step = super().fetchmany, 0, 1
        while block := fetch(step if size is None else min(step, size - len(rows))):
            rows += block
            at_most += MOST_EXPANSION * len(marshal.dumps(block, 2))
            if at_most > most_bytes:
                at_most = sum(map(row_bytes, rows))
                if at_most > most_bytes:
                    break
            if len(rows) == size:
                break
            step = BLOCK
        return rows

    def _timed(self, call: Callable[..., T], *arguments: Any) -> T:
        clock = self.connection.clock
        if clock.ran_out:
            raise clock.error()
        clock.started = started = time.monotonic() - self._spent_s
        try:
            return call(*arguments)
        except sqlite3.Error as error:
            if clock.ran_out:
                raise clock.error() from error
            raise
        finally:
            clock.started, self._spent_s = None, time.monotonic() - started


class BoundedConnection(sqlite3.Connection):
    """A connection to the database at `path`; make it with `bounded`."""

    def __init__(self, path: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.clock = _Clock(path)
        for category, limit in _LIMITS.items():
            self.setlimit(category, limit)
        self.set_progress_handler(self.clock.check, _STEPS)

    def cursor(self, factory: Any = BoundedCursor) -> Any:
        """Return a cursor within the bounds."""
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        """Run a statement on a new cursor within the bounds; the inherited method would take one without."""
        return self.cursor().execute(sql, parameters)


def bounded(path: Path) -> Callable[..., BoundedConnection]:
    """Return the `factory` for `sqlite3.connect` that makes bounded connections to the database at `path`."""

    def connect(*arguments: Any, **options: Any) -> BoundedConnection:
        return BoundedConnection(path, *arguments, **options)

    return connect


def limit_heap() -> None:
    """Limit the memory that SQLite itself takes in this process, for example for a schema of a million tables."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"PRAGMA hard_heap_limit = {MAX_HEAP_BYTES}")
    connection.close()
