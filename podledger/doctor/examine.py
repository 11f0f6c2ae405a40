"""The doctor: what endangers a ledger, or has harmed it already, each with the mend.

It changes nothing, and looks at a damaged database, or one of a newer podledger, as far as it can be read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy import Connection

from podledger.core.errors import DAMAGED_HINT
from podledger.core.text import escape
from podledger.doctor import host_checks
from podledger.doctor.finding import Finding, all_ok, guarded
from podledger.doctor.ledger_checks import MOST_TOLD, ledger_findings
from podledger.integrity.scan import scanned_ledgers
from podledger.integrity.verify import schema_problems
from podledger.store.connections import read_only, writer_settings
from podledger.store.schema import SCHEMA_HEAD, identify, is_bundle
from podledger.store.sqlite.files import integrity_faults

__all__ = ["Finding", "all_ok", "examine"]


def examine(path: Path, ledger: str | None = None, *, sockets: Iterable[Path] = ()) -> list[Finding]:
    """Everything that can be said of the database at `path`, and of its ledgers or the one named."""
    found = [host_checks.sqlite_finding(sqlite3.sqlite_version_info), *guarded("file", lambda: _file_findings(path))]
    if path.is_file():
        found += guarded("place", lambda: host_checks.place_findings(path))
        found += guarded("permissions", lambda: host_checks.permission_findings(path, sockets))
        found += guarded("wal", lambda: host_checks.wal_findings(path))
        found += guarded("database", lambda: _database_findings(path, ledger))
        if all_ok(found) and not is_bundle(path):
            found += guarded("durability", lambda: host_checks.settings_findings(writer_settings(path)))
    return found


def _file_findings(path: Path) -> Iterator[Finding]:
    if not path.is_file():
        yield Finding("file", "error", f"there is no database at {path}", "make one with `podledger init NAME`")
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
        yield from guarded("file", lambda: integrity_findings(connection))
        yield from guarded("schema", lambda: _schema_findings(connection, bundle=is_bundle(path)))
        for name in scanned_ledgers(connection):
            if ledger in (None, name):
                yield from ledger_findings(connection, name)


def integrity_findings(connection: Connection) -> Iterator[Finding]:
    """What SQLite says of the file's pages."""
    found = list(integrity_faults(connection, quick=True, limit=MOST_TOLD))
    if not found:
        yield Finding("file", "ok", "its pages are sound")
    else:
        yield from (Finding("file", "error", escape(detail, 300), DAMAGED_HINT) for detail in found)


def _schema_findings(connection: Connection, *, bundle: bool) -> Iterator[Finding]:
    problems = list(schema_problems(connection, bundle=bundle))
    for problem in problems:
        check = "triggers" if problem.detail.startswith("trigger") else "schema"
        fix = "find out who changed it; `podledger recover` makes a ledger with its triggers in place"
        yield Finding(check, "error", problem.detail, fix)
    if not any(problem.detail.startswith("trigger") for problem in problems):
        yield Finding("triggers", "ok", "the log is append-only")
