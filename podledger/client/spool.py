"""A stream in a spool: reports that are kept in a folder until their receiver has recorded them.

A spool has a folder for each incarnation. All processes that speak for it append to one stream there, which numbers
their reports 1, 2, 3, … Two locks keep them apart, and end with the process that holds them: one on the folder, for
the moment of a change, and one on the oldest segment, for as long as a process sends it.

This module imports only the standard library, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from podledger.client import segments
from podledger.client.segments import Position
from podledger.core.stamps import new_incarnation

MAX_BYTES: Final = 64 << 20
"""About how many bytes of reports a stream holds."""

LOCK_WAIT_S: Final = 5.0
"""How long to wait for a process that changes the stream, which takes microseconds unless it is stopped."""

UNNAMED: Final = "unnamed"
"""The folder of the processes that know no incarnation of their own."""

STATED: Final = "stated"
"""The folder of the reports whose stamp the caller stated: they have numbers of another stream."""

KEY: Final = re.compile(rf"{segments.UUID7}|{UNNAMED}|{STATED}")
"""The names of a stream's folder."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Claimed(NamedTuple):
    """The oldest segment of a stream, locked by this process: its lines, and the user whose file it is."""

    position: Position
    file: int
    lines: list[bytes]
    size: int
    uid: int
    gid: int


class _End(NamedTuple):
    """The open segment of a stream: its size, and how many lines it holds."""

    position: Position
    size: int
    lines: int

    @property
    def next(self) -> Position:
        """The stream, and the number of its next line."""
        return Position(self.position.source, self.position.first + self.lines)


class SpoolStream:
    """The stream in the folder `key` of the spool at `spool`. Threads and processes may use it at the same time.

    With `sync`, a report is on the disk when `append` returns, so that it survives a loss of power. Files of other
    users than `uids`, by default this process's own, are refused.
    """

    def __init__(
        self,
        spool: str,
        key: str,
        *,
        sync: bool = False,
        uids: frozenset[int] | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self.path = f"{spool}/{key}"
        self._spool = spool
        self._key = key
        self._sync = sync
        self._uids = uids or frozenset([os.geteuid()])
        self._lock_wait_s = lock_wait_s
        self._guard = threading.Lock()
        self._end: _End | None = None

    def append(self, line_at: Callable[[str, int], bytes]) -> Position:
        """Append the line that `line_at` returns for the stream and the next number; return both.

        Raises:
            OSError: it was not appended. The error names the folder.
        """
        with self._locked(create=True) as folder:
            file, end = self._open_end(folder)
            try:
                place = end.next
                line = line_at(*place)
                if end.size and end.size + len(line) > segments.SEGMENT_BYTES:
                    self._check_room(folder, len(line))
                    full, file, end = file, self._create(folder, place), _End(place, 0, 0)
                    os.close(full)
                self._write(file, line, end.size)
                self._end = end._replace(size=end.size + len(line), lines=end.lines + 1)
            finally:
                os.close(file)
        return place

    def claim(self) -> Claimed | None:
        """Lock and return the oldest segment, or None if nothing waits. Give it to `drop` or `release`.

        A segment that was open is closed to further lines by that.

        Raises:
            BlockingIOError: another process is sending it.
            OSError: no sender writes such a folder or file. The error names the folder.
        """
        try:
            with self._locked() as folder:
                while found := segments.positions(folder):
                    claimed = self._claim(folder, found[0], is_open=len(found) == 1)
                    if claimed is None or claimed.lines:
                        return claimed
                    self._remove(folder, claimed)
        except FileNotFoundError:
            pass
        return None

    def drop(self, claimed: Claimed) -> None:
        """Remove a claimed segment, whose reports are recorded, unless somebody has changed it since."""
        with self._locked() as folder:
            self._remove(folder, claimed)

    def release(self, claimed: Claimed) -> None:
        """Leave a claimed segment to the next process that claims it."""
        segments.unlock(claimed.file)

    def holds(self, place: Position) -> bool:
        """Return whether the line at `place` may still wait in the stream."""
        try:
            with self._locked() as folder:
                found = segments.positions(folder)
        except FileNotFoundError:
            return False
        return bool(found) and found[0].source == place.source and found[0].first <= place.first

    def remove(self, *, idle_since: float | None = None) -> bool:
        """Remove the stream if nothing waits in it; a later report starts another. Return whether it is gone.

        `idle_since` keeps a stream that was changed after that time, in seconds since 1970.
        """
        try:
            with self._locked() as folder:
                found = segments.positions(folder)
                if idle_since is not None and os.fstat(folder).st_mtime > idle_since:
                    return False
                if len(found) > 1 or any(segments.size_of(folder, each) for each in found):
                    return False
                for each in found:
                    os.unlink(each.name, dir_fd=folder)
                os.rmdir(f"../{self._key}", dir_fd=folder)
        except FileNotFoundError:
            return True
        except OSError:  # something else lies in it
            return False
        return True

    def _claim(self, folder: int, position: Position, *, is_open: bool) -> Claimed | None:
        file = segments.open_segment(folder, position, self._uids)
        try:
            segments.lock(file, wait_s=0)
        except BlockingIOError:
            os.close(file)
            raise
        try:
            if is_open:
                _, lines = segments.trim(file, 0, os.fstat(file).st_size)
                if not lines:
                    segments.unlock(file)
                    return None
                os.close(self._create(folder, position._replace(first=position.first + lines)))
            found = os.fstat(file)
            whole_lines = segments.read_lines(file, found.st_size)
            return Claimed(position, file, whole_lines, found.st_size, found.st_uid, found.st_gid)
        except BaseException:
            segments.unlock(file)
            raise

    def _remove(self, folder: int, claimed: Claimed) -> None:
        is_unchanged = os.fstat(claimed.file).st_size == claimed.size
        if is_unchanged and segments.is_named(folder, claimed.position, claimed.file):
            os.unlink(claimed.position.name, dir_fd=folder)
        segments.unlock(claimed.file)

    @contextmanager
    def _locked(self, *, create: bool = False) -> Iterator[int]:
        """Lock the folder, and yield its descriptor; every error names the folder."""
        with self._guard, self._named_errors():
            folder = self._lock_folder(create=create)
            try:
                yield folder
            finally:
                segments.unlock(folder)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self.path) from error

    def _lock_folder(self, *, create: bool) -> int:
        """Open and lock the folder; start again if an owner has removed it meanwhile, because it was empty."""
        while True:
            try:
                folder = self._open_folder(create=False)
            except FileNotFoundError:
                if not create:
                    raise
                folder = self._open_folder(create=True)
            try:
                segments.lock(folder, wait_s=self._lock_wait_s)
            except BlockingIOError as error:
                os.close(folder)
                text = f"a stopped process has held its lock for {self._lock_wait_s:g} s; continue or end that process"
                raise TimeoutError(errno.ETIMEDOUT, text) from error
            if os.fstat(folder).st_nlink:
                return folder
            segments.unlock(folder)

    def _open_folder(self, *, create: bool) -> int:
        if create:
            make_folder(self._spool)
        spool = os.open(self._spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if create:
                make_folder(self._key, spool)
                if self._sync:
                    os.fsync(spool)
            folder = os.open(self._key, _FOLDER, dir_fd=spool)
        finally:
            os.close(spool)
        owner = os.fstat(folder).st_uid
        if owner not in self._uids:
            os.close(folder)
            raise OSError(errno.EPERM, f"it is a folder of user {owner}; remove it, or name another spool")
        return folder

    def _open_end(self, folder: int) -> tuple[int, _End]:
        """Open the last segment, or create the first; count the lines that other processes have appended."""
        found = segments.positions(folder)
        if not found:
            first = Position(new_incarnation(), 1)
            return self._create(folder, first), _End(first, 0, 0)
        file = segments.open_segment(folder, found[-1], self._uids)
        size = os.fstat(file).st_size
        known = self._end
        if known is None or known.position != found[-1] or known.size > size:
            known = _End(found[-1], 0, 0)
        if known.size < size:
            size, lines = segments.trim(file, known.size, size)
            known = known._replace(size=size, lines=known.lines + lines)
        return file, known

    def _create(self, folder: int, position: Position) -> int:
        file = segments.create_segment(folder, position)
        if self._sync:
            os.fsync(folder)
        return file

    def _write(self, file: int, line: bytes, size: int) -> None:
        if len(line) > segments.MAX_LINE_BYTES:
            raise OSError(errno.EMSGSIZE, f"the report has {len(line):,} bytes, of at most {segments.MAX_LINE_BYTES:,}")
        try:
            written = os.pwrite(file, line, size)
            if self._sync:
                os.fdatasync(file)
        except OSError:
            written = 0
            raise
        finally:
            if written < len(line):
                with suppress(OSError):
                    os.ftruncate(file, size)
        if written < len(line):
            raise OSError(errno.ENOSPC, "its disk is full; free some space")

    def _check_room(self, folder: int, size: int) -> None:
        found = segments.positions(folder)
        used = sum(segments.size_of(folder, each) for each in found)
        if used + max(size, segments.SEGMENT_BYTES) > MAX_BYTES or len(found) >= segments.MAX_FILES:
            text = f"{used:,} bytes of reports wait there already; start their receiver, or `podledger serve --spool`"
            raise OSError(errno.ENOSPC, text)


def make_folder(path: str, parent: int | None = None) -> None:
    """Create a folder with mode 0700, below the folder `parent` (a descriptor), unless it exists."""
    with suppress(FileExistsError):
        os.mkdir(path, 0o700, dir_fd=parent)
        if stat.S_IMODE(os.stat(path, dir_fd=parent, follow_symlinks=False).st_mode) != 0o700:
            os.chmod(path, 0o700, dir_fd=parent)  # the umask may have removed our own right to it
