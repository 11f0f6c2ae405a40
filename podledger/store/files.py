"""Files that are written whole or not at all, and that only their owner may read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from podledger.core.errors import StorageError
from podledger.store.sqlite.files import application_id


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], database: Path) -> Iterator[BinaryIO]:
    """Open a stream whose bytes replace the file at `path`, with mode 0600, when the block ends without an error.

    `database` is the source of the bytes. Neither it nor any other database of podledger is replaced.

    Raises:
        StorageError: the file was not written, or `path` is a symbolic link; the old file is unchanged.
    """
    if application_id(Path(path)):
        raise StorageError(f"{os.fspath(path)} is a database", hint="choose another name")
    with placing(path, database, overwrite=True) as temporary, temporary.open("wb") as stream:
        yield stream


@contextlib.contextmanager
def placing(path: str | os.PathLike[str], database: Path, *, overwrite: bool, mode: int = 0o600) -> Iterator[Path]:
    """Create a private temporary file that becomes the file at `path` when the block ends without an error.

    It is synced to disk before it takes its place. Without `overwrite` it replaces no file, not even one that was
    created since. It never replaces `database`, from which it is made.

    Raises:
        StorageError: the file was not written, or another one is in its place; the old file is unchanged.
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
    """Check that a file to be written is not one of the database's own files.

    Raises:
        StorageError: it is one.
    """
    own = [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    if target.resolve() in [file.resolve() for file in own] or any(_is_same(target, file) for file in own):
        raise StorageError(f"{target} is the ledger's own database, or one of its files", hint="choose another name")


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
    """Give the file its name; without `overwrite` only if no other file has it by now."""
    if not overwrite:
        try:
            target.hardlink_to(temporary)
        except FileExistsError as error:
            raise _in_the_way(target) from error
        except OSError as error:  # the file system has no hard links, so a last check must do
            if target.exists():
                raise _in_the_way(target) from error
        else:
            temporary.unlink()
            return
    temporary.replace(target)


def _in_the_way(target: Path) -> StorageError:
    return StorageError(f"{target} is there already", hint="choose another name, or give --force")


def _sync(path: Path, flags: int) -> None:
    """Sync a file, or the names in a folder, to disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
