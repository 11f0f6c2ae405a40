"""Files written whole or not at all, which their owner alone may read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from podledger.errors import StorageError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A stream whose bytes take the place of the file at `path` when the block ends well, with mode 0600.

    Raises:
        StorageError: they could not be written; what was there is untouched. Or `path` is a symbolic link.
    """
    target = Path(path)
    try:
        if target.is_symlink():
            raise StorageError(f"{target} is a symbolic link", hint="name the file itself")
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            Path(temporary).replace(target)
            _sync_folder(target.parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise StorageError(f"{target} was not written: {error.strerror or error}", hint="check its folder") from error


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
