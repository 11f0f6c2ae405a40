"""A copy of a whole database in one file, taken while others may write to it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from podledger.store.connections import APPLICATION_ID, BUNDLE_ID, BUSY_TIMEOUT_S, finalize, read_only_uri, translated
from podledger.store.expected_rows import Progress
from podledger.store.files import placing
from podledger.store.schema import is_bundle, prepare

PAGES_AT_ONCE: Final = 1_000
"""How much is copied between two looks at the progress."""


def backup(
    source: Path, target: str | os.PathLike[str], *, overwrite: bool = False, progress: Progress | None = None
) -> int:
    """Copy the database at `source`, as it is at one moment, into the file `target`; how many bytes that took.

    The file needs no other beside it, its owner alone may read it, and it is there whole or not at all.

    Raises:
        LedgerNotFoundError: there is no database at `source`.
        SchemaError: it is of another version of podledger.
        StorageError: it was not written: without `overwrite`, also where a file is there already.
    """
    prepare(source, create=False)
    with placing(target, source, overwrite=overwrite) as temporary:
        copy_database(source, temporary, progress)
        finalize(temporary, BUNDLE_ID if is_bundle(source) else APPLICATION_ID)
        return temporary.stat().st_size


def copy_database(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy one snapshot of a database into the empty file `target`.

    Raises:
        StorageError: it could not be read, or not written.
    """

    def told(_status: int, left: int, total: int) -> None:
        if progress:
            progress(total - left, total)

    with (
        translated(source),
        closing(sqlite3.connect(read_only_uri(source), uri=True, timeout=BUSY_TIMEOUT_S)) as here,
        closing(sqlite3.connect(target, isolation_level=None)) as there,
    ):
        here.execute("BEGIN")
        here.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on we look at one moment
        here.backup(there, pages=PAGES_AT_ONCE, progress=told)
