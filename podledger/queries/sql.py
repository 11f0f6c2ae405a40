"""A stranger's SQL, run so that it can only read, and only so much: in time, in rows, in memory, in temporary files."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from podledger.core.errors import StorageError, TimeLimitError, UsageError
from podledger.store.connections import read_only_uri, translated
from podledger.store.schema import prepare

MAX_VALUE_BYTES: Final = 16 << 20
"""The longest text or blob that a query may make."""

MAX_RESULT_BYTES: Final = 32 << 20
"""How much of an answer is kept."""

MAX_HEAP_BYTES: Final = 192 << 20
MAX_FILE_BYTES: Final = 1 << 30
"""How much memory SQLite may take, and how long a temporary file may grow."""

GRACE_S: Final = 2.0
"""How long past its time a query may be inside one function, which nothing can interrupt, before it is left behind."""

_STEPS: Final = 10_000
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
"""The pragmas that only tell; these tell too, where nothing is set:"""
_VALUES: Final = frozenset("application_id user_version schema_version encoding page_count page_size".split())
_FUNCTIONS: Final = frozenset("load_extension fts3_tokenizer readfile writefile edit".split())
"""The functions that reach outside the database."""

_READS: Final = {sqlite3.SQLITE_SELECT: "", sqlite3.SQLITE_READ: "", sqlite3.SQLITE_RECURSIVE: ""}
_WORDS: Final = {
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_TRANSACTION: "transactions",
    sqlite3.SQLITE_SAVEPOINT: "savepoints",
}


class Answer(NamedTuple):
    """What a query found; `cut` says why there is more than this, None where there is not."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    cut: str | None


class Query:
    """One SQL statement on the database at `path`.

    In a process that does nothing else, say `alone`: then what SQLite takes of memory and temporary files is limited
    too, and these limits are the process's.
    """

    def __init__(
        self, path: Path, sql: str, *, timeout_s: float = 10.0, limit: int = 1000, alone: bool = False
    ) -> None:
        self._path = path
        self._sql = sql
        self._timeout_s = timeout_s
        self._limit = limit
        self._alone = alone
        self._late = TimeLimitError(
            f"the query was stopped after {timeout_s:g} s",
            hint="ask for less, or give it more with --timeout SECONDS",
        )
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self._refused = ""
        self._ends_at = 0.0

    def run(self) -> Answer:
        """The answer.

        Raises:
            TimeLimitError: it took too long.
            UsageError: it is no statement that only reads.
            StorageError: the database cannot be read, or the query took too much memory.
        """
        prepare(self._path, create=False)
        thread = threading.Thread(target=self._work, daemon=True, name="podledger-query")
        self._ends_at = time.monotonic() + self._timeout_s
        with _bounded_files() if self._alone else nullcontext():
            thread.start()
            thread.join(self._timeout_s + GRACE_S)
        if thread.is_alive():
            raise self._late
        if self._error is not None:
            raise self._error
        assert self._answer is not None  # noqa: S101 - a thread that ended left one or the other
        return self._answer

    def _work(self) -> None:
        try:
            with translated(self._path), self._connected() as connection:
                self._answer = self._execute(connection)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the caller waits
            self._error = error

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(read_only_uri(self._path), uri=True, isolation_level=None, cached_statements=0)
        try:
            connection.text_factory = lambda raw: raw.decode(errors="backslashreplace")
            for pragma in ("query_only = ON", "cell_size_check = ON", "temp_store = FILE"):
                connection.execute(f"PRAGMA {pragma}")
            if self._alone:
                connection.execute(f"PRAGMA hard_heap_limit = {MAX_HEAP_BYTES}")
            for category, limit in _LIMITS.items():
                connection.setlimit(category, limit)
            connection.set_authorizer(self._authorise)
            connection.set_progress_handler(lambda: time.monotonic() > self._ends_at, _STEPS)
            yield connection
        finally:
            connection.close()

    def _execute(self, connection: sqlite3.Connection) -> Answer:
        try:
            cursor = connection.execute(self._sql)
            if cursor.description is None:
                raise UsageError("there is no statement", hint="give one SELECT")
            columns = tuple(column[0] for column in cursor.description)
            return Answer(columns, *self._fetch(cursor))
        except MemoryError as error:
            raise StorageError("the query takes too much memory", hint="ask for less") from error
        except (sqlite3.ProgrammingError, sqlite3.Warning) as error:
            raise UsageError(str(error).rstrip("."), hint="give one statement, its values in it") from error
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def _fetch(self, cursor: sqlite3.Cursor) -> tuple[list[tuple[Any, ...]], str | None]:
        rows: list[tuple[Any, ...]] = []
        size = 0
        for row in cursor:
            size += sum(_size(value) for value in row)
            if len(rows) == self._limit:
                return rows, f"there are more rows than {self._limit:,} (--limit N)"
            if size > MAX_RESULT_BYTES:
                return rows, f"the answer is larger than {MAX_RESULT_BYTES >> 20} MiB"
            rows.append(row)
        return rows, None

    def _authorise(
        self, action: int, first: str | None, second: str | None, _schema: str | None, _by: str | None
    ) -> int:
        if action in _READS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_UPDATE and first == "sqlite_master":
            return sqlite3.SQLITE_OK  # how a table-valued function declares its columns; a real one is refused anyway
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
                return self._late
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
                return UsageError(str(error), hint="docs/sql.md tells of the views and their columns")
            case _:
                return error


def _words(action: int, first: str | None, second: str | None) -> str:
    if action == sqlite3.SQLITE_PRAGMA:
        return f"PRAGMA {first} is"
    if action == sqlite3.SQLITE_FUNCTION:
        return f"{second}() is"
    if action in _WORDS:
        return f"{_WORDS[action]} are" if _WORDS[action].islower() else f"{_WORDS[action]} is"
    return "what changes anything is"


def _size(value: Any) -> int:
    return len(value) + 50 if isinstance(value, str | bytes) else 30


@contextmanager
def _bounded_files() -> Iterator[None]:
    """No file of this process grows beyond what a query's temporary ones may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    bound = min(limit for limit in (MAX_FILE_BYTES, soft, hard) if limit != resource.RLIM_INFINITY)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, hard))
    try:
        yield
    finally:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def json_columns(columns: Sequence[str]) -> list[str]:
    """The names of columns, each once: the second `name` is `name_2`."""
    found: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in found:
            number += 1
            name = f"{column}_{number}"
        found.append(name)
    return found


def json_value(value: Any) -> Any:
    """A value as JSON has it: bytes in hexadecimal, what is no number of JSON's as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value
