"""Copy a whole database into one file while other processes may write to it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from podledger.core.progress import Progress
from podledger.integrity.coverage import coverage_of
from podledger.store.connections import BUSY_TIMEOUT_S, finalize, read_only_uri, translated
from podledger.store.files import placing
from podledger.store.schema import prepare

BACKUP_PAGES: Final = 1_000
"""How many pages are copied between two reports of progress."""


def backup(
    source: Path, target: str | os.PathLike[str], *, overwrite: bool = False, progress: Progress | None = None
) -> int:
    """Copy the database at `source`, as it is at one moment, into the file `target`. Return its size in bytes.

    The copy is one file that only its owner may read. If the copying fails, nothing is left at `target`.

    Raises:
        LedgerNotFoundError: there is no database at `source`.
        SchemaError: it is of another version of podledger.
        StorageError: the copy cannot be written, or a file exists and `overwrite` is false.
    """
    prepare(source, create=False)
    with placing(target, source, overwrite=overwrite) as temporary:
        copy_database(source, temporary, BUSY_TIMEOUT_S, progress)
        finalize(temporary, coverage_of(source).application_id)
        return temporary.stat().st_size


def copy_database(source: Path, target: Path, busy_timeout_s: float, progress: Progress | None = None) -> None:
    """Copy one snapshot of the database at `source` into the empty file `target`.

    Raises:
        StorageError: a file cannot be read or written.
    """

    def on_pages(_: int, remaining: int, total: int) -> None:
        if progress:
            progress(total - remaining, total)

    here = sqlite3.connect(read_only_uri(source), uri=True, timeout=busy_timeout_s, isolation_level=None)
    with translated(source), closing(here), closing(sqlite3.connect(target)) as there:
        here.execute("BEGIN")
        here.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the snapshot begins with the first read
        here.backup(there, pages=BACKUP_PAGES, progress=on_pages)
