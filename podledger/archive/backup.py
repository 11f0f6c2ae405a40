"""A copy of a whole database in one file, taken while others may write to it."""

from __future__ import annotations

import os
from pathlib import Path

from podledger.core.progress import Progress
from podledger.store.connections import BUSY_TIMEOUT_S
from podledger.store.files import placing
from podledger.store.schema import prepare
from podledger.store.sqlite.files import APPLICATION_ID, BUNDLE_ID, copy_database, finalize


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
    found = prepare(source, create=False)
    with placing(target, source, overwrite=overwrite) as temporary:
        copy_database(source, temporary, BUSY_TIMEOUT_S, progress)
        finalize(temporary, BUNDLE_ID if found.is_bundle else APPLICATION_ID)
        return temporary.stat().st_size
