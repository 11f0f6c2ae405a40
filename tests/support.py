"""Ledgers in memory and on disk, and the rows in them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from podledger.core.entries import Entry, draft
from podledger.core.events import LedgerEvent
from podledger.integrity.verify import VerifyResult, verify
from podledger.ledger import Ledger
from podledger.queries.holders import Holder, holders_at
from podledger.queries.moments import Moment
from podledger.queries.registry import Pod, pods_at
from podledger.queries.tree import children_by_parent
from podledger.store import append, log
from podledger.store.log import Rejection
from podledger.store.outbox_rows import OutboxItem, write_outbox_item
from podledger.store.projections import StateCache
from podledger.store.schema import prepare, upgrade_to
from podledger.store.sqlite.files import APPLICATION_ID
from tests.given import OWNER

Rows = dict[str, list[tuple[Any, ...]]]

PROJECTIONS = ("tenures", "grants", "pods", "streams")
KEPT = ("events", "rejected", "outbox", "consumers")
"""The tables that a rebuild must not change."""


TRIGGERS = (
    *("events_no_update", "events_no_delete", "events_no_replace"),
    *("rejected_no_update", "rejected_no_delete", "rejected_no_replace", "ledgers_no_delete"),
)
VIEWS = ("event_log", "live_pods", "pod_history", "write_holders", "notifications", "gaps", "anomalies")


def without_times(pod: dict[str, Any]) -> dict[str, Any]:
    """Return a pod without its times, which the model does not know."""
    return {name: value for name, value in pod.items() if name not in ("since", "until")}


class Bench:
    """A ledger in memory that needs no event loop."""

    def __init__(self, events: Iterable[LedgerEvent] = (), *, owner: str = OWNER, parent: str | None = None) -> None:
        self.connection = memory()
        self.owner = owner
        self.cache = StateCache()
        self.now_us = 1_000_000
        log.make_ledger(self.connection, owner, self.now_us)
        log.configure(self.connection, owner, parent, None)
        if batch := tuple(events):
            self.append(*batch)

    def append(self, *events: LedgerEvent, rejections: Sequence[Rejection] = (), tick_s: int = 1) -> list[Entry]:
        """Append events as one batch, `tick_s` seconds after the last one."""
        self.now_us += tick_s * 1_000_000
        recorded = append.append_batch(
            self.connection,
            self.owner,
            self.cache,
            [draft(event, self.owner) for event in events],
            rejections,
            now_us=self.now_us,
        )
        return recorded.entries

    def outcomes(self) -> list[str]:
        """Return the outcome of each entry."""
        return [entry.outcome for entry in log.read_all(self.connection, self.owner)]

    def pods(self, at: Moment = None, *, closed: bool = False) -> list[dict[str, Any]]:
        """Return the pods as `pods --json` prints them, without times."""
        return [without_times(pod.as_json()) for pod in pods_at(self.connection, self.owner, at, closed=closed)]

    def holders(self, path: str, at: Moment = None) -> list[Holder]:
        """Return the pods that could write `path`."""
        return holders_at(self.connection, self.owner, path, at)

    def tree(self, at: Moment = None) -> dict[str, str]:
        """Return the parent of each open pod."""
        _, children = children_by_parent(self.connection, self.owner, at)
        names = {pod.from_seq: pod.pod_name for pod in self._open(at)}
        return {
            pod.pod_name: self.owner if above is None else names[above]
            for above, pods in children.items()
            for pod in pods
        }

    def _open(self, at: Moment) -> list[Pod]:
        return pods_at(self.connection, self.owner, at)

    def verify(self) -> VerifyResult:
        """Verify the ledger."""
        return verify(self.connection, self.owner)

    def rows(self, *tables: str) -> Rows:
        """Return every row of some tables, in order."""
        return {table: self.sql(f"SELECT * FROM main.{table} ORDER BY 1, 2, 3") for table in tables}

    def steps(self, work: Callable[[], object]) -> int:
        """Return how many steps SQLite takes for some work, in hundreds: its cost, whatever the machine."""
        raw, ticks = self.connection.connection.driver_connection, count()
        assert isinstance(raw, sqlite3.Connection)
        raw.set_progress_handler(lambda: next(ticks) < 0, 100)
        work()
        raw.set_progress_handler(None, 0)
        return next(ticks)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        return [tuple(row) for row in self.connection.exec_driver_sql(query)]


@functools.cache
def _migrated() -> bytes:
    """Return an empty database that the migrations made."""
    with create_engine("sqlite://", poolclass=StaticPool).connect() as connection:
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        upgrade_to(connection)
        connection.commit()
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        return raw.serialize()


def memory() -> Connection:
    """Connect to a new database in memory that the migrations made."""
    raw = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    raw.deserialize(_migrated())
    return create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool).connect()


@functools.cache
def _folder() -> Path:
    """Return the folder of the template, which exists while the tests run."""
    held = tempfile.TemporaryDirectory(prefix="podledger-tests-")
    _held.callback(held.cleanup)
    return Path(held.name)


_held = contextlib.ExitStack()


@functools.cache
def _template() -> Path:
    path = _folder() / "template.db"
    prepare(path, create=True)
    return path


def new_database(path: Path) -> Path:
    """Create an empty database at `path`: a copy, which is faster than a migration."""
    shutil.copy(_template(), path)
    return path


def ledger_of(path: Path, *events: LedgerEvent) -> Path:
    """Append a history as one batch to the ledger of `root` at `path`, which is created if it is missing."""
    if not path.exists():
        new_database(path)

    async def fill() -> None:
        async with Ledger.open(path, OWNER) as ledger:
            await ledger.append_many(events)

    asyncio.run(fill())
    return path


@contextlib.asynccontextmanager
async def fresh_ledger(**options: Any) -> AsyncIterator[Ledger]:
    """Open a new ledger in a folder that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="podledger-") as folder:
        async with Ledger.open(new_database(Path(folder) / "l.db"), OWNER, **options) as ledger:
            yield ledger


@contextlib.contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """Connect to a database without podledger; each statement commits, and the connection closes at the end."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def alter(path: Path, *statements: str) -> None:
    """Change a database after dropping the triggers that keep its log append-only."""
    with connected(path) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def rows_of(path: Path, *tables: str) -> Rows:
    """Return every row of some tables, read without podledger."""
    with connected(path) as connection:
        return {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in tables}


async def change_outbox(ledger: Ledger, item: OutboxItem) -> None:
    """Replace an outbox item, whatever its status is."""
    await ledger.database.write(functools.partial(write_outbox_item, item=item))
