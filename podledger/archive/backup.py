"""Copy a whole database into one file while other processes may write to it."""

from __future__ import annotations

import os
from pathlib import Path

from podledger.core.progress import Progress
from podledger.integrity.coverage import coverage_of
from podledger.store.connections import BUSY_TIMEOUT_S
from podledger.store.files import placing
from podledger.store.schema import prepare
from podledger.store.sqlite.files import copy_database, finalize


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
