"""A connection for SQL from a user: it can only read, within limits of time and memory."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from podledger.core.errors import StorageError, TimeLimitError, UsageError
from podledger.store.sqlite.engines import read_only_uri
from podledger.store.sqlite.errors import translated

MAX_VALUE_BYTES: Final = 16 << 20
"""The longest text or blob that a query may make."""

MAX_HEAP_BYTES: Final = 192 << 20
"""How much memory SQLite may take where it is limited."""

_STEPS: Final = 10_000
"""How many steps of SQLite's virtual machine pass between two checks of the clock."""

_LIMITS: Final = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 256 << 10,
    sqlite3.SQLITE_LIMIT_COLUMN: 200,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_PRAGMAS: Final = frozenset(
    "table_info table_xinfo table_list index_list index_info index_xinfo foreign_key_list database_list "
    "collation_list function_list pragma_list compile_options".split()
)
"""The pragmas that only read."""

_VALUES: Final = frozenset("application_id user_version schema_version encoding page_count page_size".split())
"""The pragmas that only read unless a value is given."""

_FUNCTIONS: Final = frozenset("load_extension fts3_tokenizer readfile writefile edit".split())
"""The functions that reach outside the database."""

_READS: Final = {sqlite3.SQLITE_SELECT: "", sqlite3.SQLITE_READ: "", sqlite3.SQLITE_RECURSIVE: ""}
_WORDS: Final = {
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_TRANSACTION: "transactions",
    sqlite3.SQLITE_SAVEPOINT: "savepoints",
}

T = TypeVar("T")


class RestrictedQuery:
    """One statement on the database at `path`, interrupted at `ends_at` on the monotonic clock.

    `limit_heap` limits SQLite's memory in this process.
    """

    def __init__(self, path: Path, sql: str, *, ends_at: float, limit_heap: bool) -> None:
        self._path = path
        self._sql = sql
        self._ends_at = ends_at
        self._limit_heap = limit_heap
        self._refused = ""

    def run(self, collect: Callable[[tuple[str, ...], Iterable[tuple[Any, ...]]], T]) -> T:
        """Run the statement; return the result of `collect` for its columns and rows.

        Raises:
            TimeLimitError: it was interrupted.
            UsageError: it is not one statement that only reads.
            StorageError: the database cannot be read, or the query took too much memory.
        """
        with translated(self._path), self._connected() as connection:
            try:
                cursor = connection.execute(self._sql)
                if cursor.description is None:
                    raise UsageError("there is no statement", hint="give one SELECT")
                return collect(tuple(column[0] for column in cursor.description), cursor)
            except MemoryError as error:
                raise StorageError("the query takes too much memory", hint="ask for less") from error
            except (sqlite3.ProgrammingError, sqlite3.Warning) as error:
                hint = "give one statement, with its values in it"
                raise UsageError(str(error).rstrip("."), hint=hint) from error
            except sqlite3.Error as error:
                raise self._meaning(error) from error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(read_only_uri(self._path), uri=True, isolation_level=None, cached_statements=0)
        try:
            connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
            for pragma in ("query_only = ON", "cell_size_check = ON", "temp_store = FILE"):
                connection.execute(f"PRAGMA {pragma}")
            if self._limit_heap:
                connection.execute(f"PRAGMA hard_heap_limit = {MAX_HEAP_BYTES}")
            for category, limit in _LIMITS.items():
                connection.setlimit(category, limit)
            connection.set_authorizer(self._authorize)
            connection.set_progress_handler(lambda: time.monotonic() > self._ends_at, _STEPS)
            yield connection
        finally:
            connection.close()

    def _authorize(
        self, action: int, first: str | None, second: str | None, _schema: str | None, _by: str | None
    ) -> int:
        if action in _READS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
            return sqlite3.SQLITE_OK  # a table-valued function declares its columns so; a real update fails anyway
        if action == sqlite3.SQLITE_PRAGMA:
            name = (first or "").lower()
            if name in _PRAGMAS or (name in _VALUES and second is None):
                return sqlite3.SQLITE_OK
        self._refused = self._refused or _words(action, first, second)
        return sqlite3.SQLITE_DENY

    def _meaning(self, error: sqlite3.Error) -> Exception:
        if self._refused:
            return UsageError(f"{self._refused} refused: `podledger sql` only reads", hint="give one SELECT")
        match getattr(error, "sqlite_errorname", "").split("_")[1:2]:
            case ["INTERRUPT"]:
                return TimeLimitError("the query was interrupted")
            case ["READONLY"]:
                return UsageError("refused: `podledger sql` only reads", hint="give one SELECT")
            case ["NOMEM"]:
                return StorageError("the query takes too much memory", hint="ask for less")
            case ["TOOBIG"]:
                limit = f"{MAX_VALUE_BYTES >> 20} MiB"
                return StorageError(f"the query makes a value larger than {limit}", hint="ask for less")
            case ["FULL"] | ["IOERR"]:
                return StorageError("the query takes too much room for temporary files", hint="ask for less")
            case ["ERROR"] | ["SCHEMA"]:
                return UsageError(str(error), hint="see docs/sql.md for the views and their columns")
            case _:
                return error


def _words(action: int, first: str | None, second: str | None) -> str:
    if action == sqlite3.SQLITE_PRAGMA:
        return f"PRAGMA {first} is"
    if action == sqlite3.SQLITE_FUNCTION:
        return f"{second}() is"
    if action in _WORDS:
        return f"{_WORDS[action]} are" if _WORDS[action].islower() else f"{_WORDS[action]} is"
    return "a statement that changes something is"
