"""Files written whole or not at all, which their owner alone may read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from podledger.core.errors import StorageError
from podledger.store.schema import application_id


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], database: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes take the place of the file at `path` when the block ends well, with mode 0600.

    They are read from `database`, which stays as it is, as any other database of podledger does.

    Raises:
        StorageError: they could not be written; what was there is untouched. Or `path` is a symbolic link.
    """
    if application_id(Path(path)):
        raise StorageError(f"{os.fspath(path)} is a database", hint="choose another name")
    with placing(path, database, overwrite=True) as temporary, temporary.open("wb") as stream:
        yield stream


@contextlib.contextmanager
def placing(path: str | os.PathLike[str], database: Path, *, overwrite: bool, mode: int = 0o600) -> Iterator[Path]:
    """A temporary file, its owner's alone, that becomes the file at `path` when the block ends well.

    It is on disk before it takes its place. Without `overwrite` a file that is there stays, or came meanwhile; and
    `database`, from which it is made, stays always.

    Raises:
        StorageError: it could not be written, or something is in the way; what was there is untouched.
    """
    target = Path(path)
    check_apart(target, database)
    try:
        _check_free(target, overwrite=overwrite)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            _sync(temporary, os.O_RDONLY)
            temporary.chmod(mode)
            _put(temporary, target, overwrite=overwrite)
            _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{target} was not written: {error.strerror or error}", hint="check its folder") from error


def check_apart(target: Path, database: Path) -> None:
    """See that a file to be written is none of those that a database is made of.

    Raises:
        StorageError: it is.
    """
    own = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    if target.resolve() in [file.resolve() for file in own] or any(_is_same(target, file) for file in own):
        raise StorageError(f"{target} is the ledger's own database, or of it", hint="choose another name")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _check_free(target: Path, *, overwrite: bool) -> None:
    if target.is_dir():
        raise StorageError(f"{target} is a folder", hint="name a file in it")
    if target.is_symlink():
        raise StorageError(f"{target} is a symbolic link", hint="name the file itself")
    if not overwrite and target.exists():
        raise _in_the_way(target)


def _put(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Give the file its name; without `overwrite` only if nothing has it by now."""
    if not overwrite:
        try:
            target.hardlink_to(temporary)
        except FileExistsError as error:
            raise _in_the_way(target) from error
        except OSError as error:  # the file system knows no links, so a last look must do
            if target.exists():
                raise _in_the_way(target) from error
        else:
            temporary.unlink()
            return
    temporary.replace(target)


def _in_the_way(target: Path) -> StorageError:
    return StorageError(f"{target} is there already", hint="choose another name, or give --force")


def _sync(path: Path, flags: int) -> None:
    """Make a file, or the names in a folder, last through a loss of power."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
