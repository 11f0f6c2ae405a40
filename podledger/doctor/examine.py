"""Examine a database for risks and damage, and say how to fix each finding.

An examination changes nothing. It goes as far as possible in a damaged database and in one of a newer podledger.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection

from podledger.core.errors import DAMAGED_HINT
from podledger.core.text import escape
from podledger.doctor import host_checks
from podledger.doctor.finding import Finding, all_ok, guarded
from podledger.doctor.ledger_checks import MAX_LISTED, ledger_findings
from podledger.integrity.coverage import coverage_of, read_coverage
from podledger.integrity.scan import scanned_ledgers
from podledger.integrity.schema import schema_problems
from podledger.store.connections import read_only, writer_settings
from podledger.store.schema import SCHEMA_HEAD, identify
from podledger.store.sqlite.files import integrity_faults


def examine(path: Path, ledger: str | None = None, *, sockets: Iterable[Path] = ()) -> list[Finding]:
    """Return the findings about the database at `path`, the given sockets, and its ledgers or the one named."""
    findings = [host_checks.sqlite_finding(sqlite3.sqlite_version_info), *guarded("file", partial(_revision, path))]
    if path.is_file():
        findings += guarded("place", partial(host_checks.place_findings, path))
        findings += guarded("permissions", partial(host_checks.permission_findings, path, sockets))
        findings += guarded("wal", partial(host_checks.wal_findings, path))
        findings += guarded("database", partial(_database_findings, path, ledger))
        if all_ok(findings):
            findings += guarded("durability", partial(_settings_findings, path))
    return findings


def _revision(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding("file", "error", f"there is no database at {path}", "create one with `podledger init NAME`")
        return
    revision = identify(path).revision
    if revision is not None and revision > SCHEMA_HEAD:
        detail = f"it has schema {revision}, newer than this podledger's {SCHEMA_HEAD}"
        yield Finding("schema", "error", detail, "update podledger")
    elif revision != SCHEMA_HEAD:
        detail = f"it has schema {revision or 'none'}, older than this podledger's {SCHEMA_HEAD}"
        yield Finding("schema", "error", detail, "upgrade it with `podledger init NAME`")
    else:
        yield Finding("schema", "ok", f"schema {revision}")


def _database_findings(path: Path, ledger: str | None) -> Iterator[Finding]:
    with read_only(path) as connection:
        yield from guarded("file", partial(_integrity_findings, connection))
        yield from guarded("schema", partial(_schema_findings, connection))
        for name in scanned_ledgers(connection):
            if ledger in (None, name):
                yield from ledger_findings(connection, name)


def _integrity_findings(connection: Connection) -> Iterator[Finding]:
    faults = list(integrity_faults(connection, quick=True, limit=MAX_LISTED))
    if not faults:
        yield Finding("file", "ok", "SQLite finds no damaged page")
    else:
        yield from (Finding("file", "error", escape(fault, 300), DAMAGED_HINT) for fault in faults)


def _schema_findings(connection: Connection) -> Iterator[Finding]:
    problems = list(islice(schema_problems(connection, read_coverage(connection)), MAX_LISTED))
    triggers = [problem for problem in problems if problem.detail.startswith("trigger")]
    for problem in problems:
        fix = "find out who changed it; `podledger recover` writes a new ledger with its triggers in place"
        yield Finding("triggers" if problem in triggers else "schema", "error", problem.detail, fix)
    if not triggers:
        yield Finding("triggers", "ok", "the log is append-only")


def _settings_findings(path: Path) -> Iterable[Finding]:
    return host_checks.settings_findings(writer_settings(path)) if coverage_of(path).is_whole else ()
