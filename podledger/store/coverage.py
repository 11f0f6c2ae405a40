"""The coverage of a database: how much of its ledgers' logs it holds.

Other code asks this value, and does not need to know what kinds of database there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Connection, MetaData

from podledger.core.entries import Entry
from podledger.core.errors import UsageError
from podledger.core.problem import Problem
from podledger.store.sqlite.files import APPLICATION_ID


class Coverage(Protocol):
    """How much of its ledgers' logs a database holds; immutable."""

    @property
    def is_whole(self) -> bool:
        """Whether it holds every entry with its payload. Only such a database may be written."""

    @property
    def application_id(self) -> int:
        """The number in the header of such a file."""

    @property
    def tables(self) -> MetaData:
        """The tables that such a database has in addition to those of the schema."""

    def describe(self) -> str:
        """Return the kind of database and its content in a few words."""

    def covers(self, pod_name: str, /) -> bool:
        """Return whether the database is meant to show this pod."""

    def projects(self, pod_name: str, /) -> bool:
        """Return whether the projections hold this pod, which they also do if a covered pod descends from it."""

    def payload_digests(self, connection: Connection, page: Sequence[Entry], /) -> Mapping[int, str]:
        """Return the digests of the payloads that the database does not hold, by seq, for a page of the log."""

    def problems(self, connection: Connection, /) -> Iterator[Problem]:
        """Yield where the content of the database contradicts its coverage."""


class WholeLog:
    """The coverage of a database that holds whole logs."""

    is_whole: Final = True
    application_id: Final = APPLICATION_ID
    tables: Final = MetaData()

    def describe(self) -> str:
        """Return the kind of database."""
        return "a database of whole ledgers"

    def covers(self, _pod_name: str) -> bool:
        """Return True: it shows every pod."""
        return True

    def projects(self, _pod_name: str) -> bool:
        """Return True: the projections hold every pod."""
        return True

    def payload_digests(self, _connection: Connection, _page: Sequence[Entry]) -> Mapping[int, str]:
        """Return nothing: it holds every payload."""
        return {}

    def problems(self, _connection: Connection) -> Iterator[Problem]:
        """Yield nothing: the other checks look at everything that it holds."""
        return iter(())


WHOLE_LOG: Final = WholeLog()
USE_SOURCE: Final = "use the ledger that it was made from"
"""The hint for what a database cannot do that holds a part of a log."""


def check_whole(path: Path, coverage: Coverage) -> None:
    """Check that the database at `path` holds whole logs.

    Raises:
        UsageError: it holds a part of a log.
    """
    if not coverage.is_whole:
        raise UsageError(f"{path} holds no whole log: it is {coverage.describe()}", hint=USE_SOURCE)


def check_projected(path: Path, coverage: Coverage, pod_name: str) -> None:
    """Check that the projections of the database at `path` hold this pod.

    Raises:
        UsageError: they do not.
    """
    if not coverage.projects(pod_name):
        what = f"{path} does not show the pod {pod_name!r}: it is {coverage.describe()}"
        raise UsageError(what, hint=USE_SOURCE)
