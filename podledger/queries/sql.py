"""SQL from a user: one statement that can only read, limited in time, rows, memory and temporary files."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from podledger.core.errors import TimeLimitError
from podledger.store.schema import prepare
from podledger.store.sqlite.restricted import RestrictedQuery

MAX_RESULT_BYTES: Final = 32 << 20
"""The most bytes of a result that are kept."""

MAX_FILE_BYTES: Final = 1 << 30
"""How long a temporary file may grow where that is limited."""

GRACE_S: Final = 2.0
"""How long past its time limit a query may stay in one function, which nothing can interrupt, before it is left."""


class SqlResult(NamedTuple):
    """The result of a query; `cut` is the reason why rows are missing, or None if none are."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    cut: str | None


class Query:
    """One SQL statement on the database at `path`.

    `alone` is for a process that does nothing else: it also limits the memory and temporary files of SQLite, in the
    whole process.
    """

    def __init__(
        self, path: Path, sql: str, *, timeout_s: float = 10.0, limit: int = 1000, alone: bool = False
    ) -> None:
        self._path = path
        self._sql = sql
        self._timeout_s = timeout_s
        self._limit = limit
        self._alone = alone
        self._result: SqlResult | None = None
        self._error: BaseException | None = None

    def run(self) -> SqlResult:
        """Run the statement and return its result.

        Raises:
            TimeLimitError: it took too long.
            UsageError: it is not one statement that only reads.
            StorageError: the database cannot be read, or the query took too much memory.
        """
        prepare(self._path, create=False)
        ends_at = time.monotonic() + self._timeout_s
        query = RestrictedQuery(self._path, self._sql, ends_at=ends_at, limit_heap=self._alone)
        thread = threading.Thread(target=self._work, args=(query,), daemon=True, name="podledger-query")
        with _limited_files() if self._alone else nullcontext():
            thread.start()
            thread.join(self._timeout_s + GRACE_S)
        if thread.is_alive() or isinstance(self._error, TimeLimitError):
            reason = f"the query was stopped after {self._timeout_s:g} s"
            raise TimeLimitError(reason, hint="ask for less, or give it more time with --timeout SECONDS")
        if self._error is not None:
            raise self._error
        assert self._result is not None  # noqa: S101 - a thread that ended left one or the other
        return self._result

    def _work(self, query: RestrictedQuery) -> None:
        try:
            self._result = query.run(self._collect)
        except BaseException as error:  # noqa: BLE001 - `run` raises it again where the caller waits
            self._error = error

    def _collect(self, columns: tuple[str, ...], found: Iterable[tuple[Any, ...]]) -> SqlResult:
        rows: list[tuple[Any, ...]] = []
        size = 0
        for row in found:
            size += sum(_size(value) for value in row)
            if len(rows) == self._limit:
                return SqlResult(columns, rows, f"there are more rows than {self._limit:,} (--limit N)")
            if size > MAX_RESULT_BYTES:
                return SqlResult(columns, rows, f"the answer is larger than {MAX_RESULT_BYTES >> 20} MiB")
            rows.append(row)
        return SqlResult(columns, rows, None)


def _size(value: Any) -> int:
    return len(value) + 50 if isinstance(value, str | bytes) else 30


@contextmanager
def _limited_files() -> Iterator[None]:
    """Limit how long a file of this process may grow."""
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
    """Return column names without repetition: the second `name` becomes `name_2`."""
    found: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in found:
            number += 1
            name = f"{column}_{number}"
        found.append(name)
    return found


def json_value(value: Any) -> Any:
    """Return a value as JSON holds it: bytes in hexadecimal, an infinite number as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return value
