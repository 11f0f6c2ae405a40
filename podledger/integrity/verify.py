"""Verify a ledger: that nothing is missing, that nothing was changed, and that the projections follow from the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from podledger.core.errors import PodledgerError
from podledger.core.problem import Problem
from podledger.core.progress import Progress
from podledger.core.text import escape
from podledger.integrity import checks
from podledger.integrity.coverage import read_coverage
from podledger.integrity.notes import Note, note_problems
from podledger.integrity.scan import UNREADABLE, losses, scan, scanned_ledgers
from podledger.integrity.schema import schema_problems
from podledger.store import log
from podledger.store.connections import read_only
from podledger.store.coverage import WHOLE_LOG, Coverage
from podledger.store.log import Head
from podledger.store.own_tables import altered_tables
from podledger.store.sqlite.files import application_id_of, integrity_faults, user_version_of

MAX_PROBLEMS: Final = 1000
"""The most problems that a result lists. If there are more, its last problem says so."""


class VerifyResult(NamedTuple):
    """The result of `verify`: how many events the log holds, the digest of the last one, and every problem."""

    ledger: str
    events: int
    head_digest: str
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Return the result as `verify --json` prints it."""
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
    """Verify one ledger, on a read-only connection that may make temporary tables.

    `expected` are notes of this ledger that were taken earlier; the log must still match them.

    Raises:
        LedgerNotFoundError: there is no such ledger.
        StorageError: the file cannot be read to its end.
    """
    if next(altered_tables(connection), None):  # nothing may be read from them
        return VerifyResult(ledger, 0, "", tuple(islice(schema_problems(connection, WHOLE_LOG), MAX_PROBLEMS)))
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
    """Return the losses in the logs of a file that podledger cannot open."""
    try:
        with read_only(path) as connection:
            names = [name for name in scanned_ledgers(connection) if ledger in (None, name)]
            problems = [problem for name in names for problem in _loss_problems(connection, name)]
    except PodledgerError:
        names, problems = [], []
    return tuple(problems) if names else (Problem("log", 1, "no entry of it can be read"),)


def is_misnamed(path: Path, ledger: str | None) -> bool:
    """Return whether the name is wrong and the file is not: it never held such a ledger, or it holds several."""
    try:
        with read_only(path) as connection:
            names, logs = log.ledger_names(connection), scanned_ledgers(connection)
    except PodledgerError:
        return False
    return bool(names) and (len(names) > 1 if ledger is None else ledger not in {*names, *logs})


def _all_problems(connection: Connection, head: Head, progress: Progress | None) -> Iterator[Problem]:
    coverage = read_coverage(connection)
    yield from _guarded("schema", schema_problems(connection, coverage))
    yield from _guarded("file", _integrity_problems(connection))
    yield from _guarded("file", _header_problems(connection, coverage))
    yield from _guarded("head", checks.head_problems(connection, head))
    try:
        yield from checks.log_problems(connection, head, coverage, progress)
        yield from coverage.problems(connection)
    except UNREADABLE:
        yield from _loss_problems(connection, head.name)
    else:
        projected = checks.projection_problems(connection, head.name, coverage, MAX_PROBLEMS + 1)
        yield from _guarded("projection", projected)
    yield from _guarded("rejected", checks.rejected_problems(connection, head))
    yield from _guarded("outbox", checks.outbox_problems(connection, head))
    yield from _guarded("consumer", checks.consumer_problems(connection, head))


def _guarded(check: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    """Yield a check's problems; if a damaged file stops the check, that is a problem too."""
    try:
        yield from problems
    except UNREADABLE as error:
        if getattr(getattr(error, "orig", error), "sqlite_errorname", "") in _NO_ROOM:
            raise
        yield Problem(check, None, f"it cannot be read to its end: {escape(str(error), 200)}")


_NO_ROOM: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
"""The errors of a check that only reads if SQLite has no room for temporary files. The ledger is not at fault."""


def _loss_problems(connection: Connection, ledger: str) -> Iterator[Problem]:
    for first, last, reason in losses(scan(connection, ledger)):
        yield Problem("log", first, reason if first == last else f"up to seq {last}: {reason}")


def _integrity_problems(connection: Connection) -> Iterator[Problem]:
    """Yield the problems that SQLite's own check finds in the file."""
    for fault in integrity_faults(connection):
        yield Problem("file", None, fault)


def _header_problems(connection: Connection, coverage: Coverage) -> Iterator[Problem]:
    actual = {"application_id": application_id_of(connection), "user_version": user_version_of(connection)}
    expected = {"application_id": coverage.application_id, "user_version": 0}
    for field, number in expected.items():
        if actual[field] != number:
            yield Problem("file", None, f"the header's {field} is {actual[field]}, and not {number}")
