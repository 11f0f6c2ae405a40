"""The certificate: that the log is whole, that nothing was changed in place, and that the projections are the log's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from podledger.bundle.check import Bundle, bundle_problems, entry_problems, read_bundle, withheld_digests
from podledger.core.digest import NO_DIGEST, WITHHELD, chain_digest
from podledger.core.entries import Entry
from podledger.core.errors import PodledgerError
from podledger.core.problem import Problem
from podledger.core.progress import Progress
from podledger.core.text import escape
from podledger.integrity.notes import Note, note_problems
from podledger.integrity.scan import UNREADABLE, losses, scan, scanned_ledgers
from podledger.store import log
from podledger.store.connections import read_only
from podledger.store.expected_rows import checked_rows
from podledger.store.log import Head
from podledger.store.outbox_rows import read_outbox
from podledger.store.rebuild import differences
from podledger.store.schema import upgrade_to
from podledger.store.sqlite.files import (
    APPLICATION_ID,
    BUNDLE_ID,
    application_id_of,
    integrity_faults,
    schema_of,
    user_version_of,
)
from podledger.store.tables import bundle_metadata, consumers, metadata

MAX_PROBLEMS = 1000
"""How many problems a certificate lists; where there are more, its last one says so."""


class VerifyResult(NamedTuple):
    """What `verify` found: how many events, the digest of the last one, and every problem."""

    ledger: str
    events: int
    head_digest: str
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The certificate as `verify --json` prints it."""
        return {
            "ok": self.ok,
            "ledger": self.ledger,
            "events": self.events,
            "head_digest": self.head_digest,
            "problems": [problem._asdict() for problem in self.problems],
        }


def verify(
    connection: Connection, ledger: str, progress: Progress | None = None, expected: Sequence[Note] = ()
) -> VerifyResult:
    """Check one ledger, on a read-only connection that this call may make temporary tables on.

    `expected` is what was noted of it before, and must still be so.

    Raises:
        LedgerNotFoundError: there is no such ledger.
        StorageError: the file cannot be read to its end.
    """
    head = log.read_head(connection, ledger)
    problems: list[Problem] = []
    expectations = note_problems(connection, ledger, expected)
    for problem in chain(expectations, _all_problems(connection, head, progress)):
        if len(problems) == MAX_PROBLEMS:
            problems.append(Problem("limit", None, f"more than {MAX_PROBLEMS} problems: the rest is not listed"))
            break
        problems.append(problem)
    return VerifyResult(ledger, head.head_seq, head.head_digest, tuple(problems))


def damage(path: Path, ledger: str | None = None) -> tuple[Problem, ...]:
    """What is lost of the logs in a file that cannot be opened as it should, by scan."""
    try:
        with read_only(path) as connection:
            names = [name for name in scanned_ledgers(connection) if ledger in (None, name)]
            found = [problem for name in names for problem in _loss_problems(connection, name)]
    except PodledgerError:
        names, found = [], []
    return tuple(found) if names else (Problem("log", 1, "nothing of it can be read"),)


def is_misnamed(path: Path, ledger: str | None) -> bool:
    """Whether the name asked for is wrong, and not the file: it never held such a ledger, or it holds several."""
    try:
        with read_only(path) as connection:
            names, logs = log.ledger_names(connection), scanned_ledgers(connection)
    except PodledgerError:
        return False
    return bool(names) and (len(names) > 1 if ledger is None else ledger not in {*names, *logs})


def _all_problems(connection: Connection, head: Head, progress: Progress | None) -> Iterator[Problem]:
    bundle = read_bundle(connection)
    yield from _guarded("file", _file_problems(connection))
    yield from _guarded("schema", schema_problems(connection, bundle=bundle is not None))
    yield from _guarded("file", _header_problems(connection, BUNDLE_ID if bundle else APPLICATION_ID))
    yield from _guarded("head", _head_problems(connection, head))
    try:
        yield from _log_problems(connection, head, bundle, progress)
    except UNREADABLE:
        yield from _loss_problems(connection, head.name)
    else:
        yield from _guarded("projection", _projection_problems(connection, head.name, bundle))
    yield from _guarded("rejected", _rejected_problems(connection, head))
    yield from _guarded("outbox", _outbox_problems(connection, head))
    yield from _guarded("consumer", _consumer_problems(connection, head))


def _guarded(check: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    """The problems that a check finds; in a damaged file, that it cannot go on is one."""
    try:
        yield from problems
    except UNREADABLE as error:
        if getattr(getattr(error, "orig", error), "sqlite_errorname", "") in _NO_ROOM:
            raise
        yield Problem(check, None, f"it cannot be read to its end: {escape(str(error), 200)}")


_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
"""What a check meets, though it only reads, where SQLite has no room for its temporary files: no fault of a ledger."""


def _loss_problems(connection: Connection, ledger: str) -> Iterator[Problem]:
    for first, last, reason in losses(scan(connection, ledger)):
        yield Problem("log", first, reason if first == last else f"up to seq {last}: {reason}")


def _projection_problems(connection: Connection, ledger: str, bundle: Bundle | None) -> Iterator[Problem]:
    """What the rules say of the log, beside its outcomes and the projections."""
    told: list[Problem] = []
    expected = checked_rows(
        connection,
        ledger,
        folds=bundle.what.folds if bundle else lambda _: True,
        on_problem=lambda problem: told.append(problem) if len(told) <= MAX_PROBLEMS else None,
    )
    found = differences(connection, ledger, expected)
    try:
        differing = list(islice(found, MAX_PROBLEMS + 1))
    except UNREADABLE:
        yield from told
        raise
    yield from told
    for difference in differing:
        is_what = "is not what the log says" if difference.extra else "is missing"
        key = ", ".join(str(value) for value in difference.key[1:])
        yield Problem("projection", None, f"{difference.table.name}: the row of {key!r} {is_what}")


def _file_problems(connection: Connection) -> Iterator[Problem]:
    for fault in integrity_faults(connection):
        yield Problem("file", None, fault)


def schema_problems(connection: Connection, *, bundle: bool = False) -> Iterator[Problem]:
    """Where the tables, indexes, triggers and views are not what the migrations make."""
    found, expected = schema_of(connection), expected_schema(bundle=bundle)
    for name, sql in expected.items():
        if name not in found:
            yield Problem("schema", None, f"{name} is missing")
        elif found[name] != sql:
            yield Problem("schema", None, f"{name} was altered")
    for name in found.keys() - expected.keys():
        yield Problem("schema", None, f"{name} is not podledger's")


@cache
def expected_schema(*, bundle: bool = False) -> dict[str, str]:
    """The schema that the migrations make, made in memory; with `bundle` also the tables that only a bundle has."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        upgrade_to(connection)
        if bundle:
            bundle_metadata.create_all(connection)
        found = schema_of(connection)
    engine.dispose()
    return found


def _header_problems(connection: Connection, application_id: int) -> Iterator[Problem]:
    marks = (
        ("application_id", application_id_of(connection), application_id),
        ("user_version", user_version_of(connection), 0),
    )
    for mark, found, expected in marks:
        if found != expected:
            yield Problem("file", None, f"the header's {mark} is {found}, and not {expected}")


def _head_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    if head.with_checksum() != head:
        yield Problem("head", None, "the ledger's row was changed in place")
    for table in metadata.tables.values():
        column = "name" if table.name == "ledgers" else "ledger"
        query = f"SELECT DISTINCT {column} FROM main.{table.name} WHERE {column} NOT IN (SELECT name FROM main.ledgers)"
        for (name,) in connection.exec_driver_sql(query):
            yield Problem("ledger", None, f"{table.name} has rows of {name!r}, which is no ledger here")
    for name, key in (("events", "seq"), ("rejected", "number"), ("outbox", "number")):
        query = f"SELECT count(*) FROM main.{name} WHERE ledger = ? AND {key} < 1"
        if count := connection.exec_driver_sql(query, (head.name,)).scalar():
            yield Problem("numbering", None, f"{name} has {count} rows numbered below 1")


def _log_problems(
    connection: Connection, head: Head, bundle: Bundle | None, progress: Progress | None
) -> Iterator[Problem]:
    seq, recorded_us, digest, counted, hidden = 0, 0, NO_DIGEST, 0, 0
    while page := log.read_page(connection, head.name, log.Selection(after=seq)):
        withheld = withheld_digests(connection, head.name, page) if bundle else {}
        for entry in page:
            yield from _entry_problems(entry, seq, recorded_us, digest, withheld.get(entry.seq))
            if bundle:
                yield from entry_problems(bundle.what, entry, withheld.get(entry.seq))
            seq, recorded_us, digest = entry.seq, max(recorded_us, entry.recorded_us), entry.digest
        counted, hidden = counted + len(page), hidden + len(withheld)
        if progress:
            progress(counted, head.head_seq)
    if bundle:
        yield from bundle_problems(connection, bundle, hidden)
    if (seq, digest, recorded_us) != (head.head_seq, head.head_digest, head.head_us):
        yield Problem("head", None, f"the log ends at seq {seq}, and the ledger's row says {head.head_seq}")


def _entry_problems(entry: Entry, seq: int, recorded_us: int, digest: str, withheld: str | None) -> Iterator[Problem]:
    if entry.seq != seq + 1:
        yield Problem("numbering", entry.seq, f"it follows seq {seq}")
    if entry.recorded_us < recorded_us:
        yield Problem("time", entry.seq, "it was recorded before the entry that it follows")
    if "" in entry:
        yield Problem("chain", entry.seq, "an empty text stands where a null or a word should")
    if entry.digest != chain_digest(digest, entry, withheld if entry.payload == WITHHELD else None):
        yield Problem("chain", entry.seq, "its digest is not that of what it holds and of the entry before")


def _rejected_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    number, digest = 0, NO_DIGEST
    while page := log.read_rejected(connection, head.name, after=number):
        for row in page:
            if row.number != number + 1:
                yield Problem("rejected", None, f"line {row.number} follows line {number}")
            if row.digest != log.rejected_digest(digest, row):
                yield Problem("rejected", None, f"line {row.number} was changed in place")
            number, digest = row.number, row.digest
    if (number, digest) != (head.rejected_count, head.rejected_digest):
        yield Problem("rejected", None, f"{number} lines are there, and the ledger's row says {head.rejected_count}")


def _outbox_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    number = 0
    while page := read_outbox(connection, head.name, after=number):
        for row in page:
            if row.number != number + 1:
                yield Problem("outbox", row.seq, f"row {row.number} follows row {number}")
            if row.with_checksum() != row:
                yield Problem("outbox", row.seq, f"row {row.number} was changed in place")
            number = row.number
    if number != head.outbox_count:
        yield Problem("outbox", None, f"{number} rows are there, and the ledger's row says {head.outbox_count}")


def _consumer_problems(connection: Connection, head: Head) -> Iterator[Problem]:
    rows = connection.execute(consumers.select().where(consumers.c.ledger == head.name)).all()
    for row in rows:
        if row.row_checksum != log.row_checksum(row[:-1]):
            yield Problem("consumer", None, f"the cursor of {row.name!r} was changed in place")
    if len(rows) != head.consumer_count:
        yield Problem("consumer", None, f"{len(rows)} are there, and the ledger's row says {head.consumer_count}")
