"""The receiver's socket file: taken only where nobody listens, its owner's alone, and removed only if it is still ours.

Beside it stands `<socket>.lock`, locked for as long as the socket is in use, so that of two receivers that start at the
same moment neither takes the other's socket for a dead one. A receiver that is killed leaves both; the next one takes
them over.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from podledger.client.delivery import MAX_ADDRESS_BYTES
from podledger.core.errors import SocketError

BACKLOG: Final = 4096
"""How many clients may wait to be accepted; the kernel's own limit may be lower."""

PROBE_TIMEOUT_S: Final = 1.0
_MODE: Final = 0o600


class SocketFile:
    """A listening, non-blocking socket and the file that it is bound to."""

    def __init__(self, path: Path, listener: socket.socket, lock: int) -> None:
        self.path = path
        self.listener = listener
        self._lock = lock
        self._identity = _identity(path)

    @classmethod
    def claim(cls, path: str | os.PathLike[str]) -> SocketFile:
        """Listen on `path`, with mode 0600 from the first moment; a dead socket there is replaced.

        Raises:
            SocketError: another receiver listens there, something else is in the way, or the path will not do.
        """
        place = _checked(path)
        lock = _lock(place)
        try:
            _clear(place)
            return cls(place, _bind(place), lock)
        except BaseException:
            _unlock(place, lock)
            raise

    def remove(self) -> None:
        """Remove the file, unless another has taken its place; who is connected or waits to be stays."""
        with suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()

    def close(self) -> None:
        """Stop listening, and leave the path to others."""
        self.listener.close()
        _unlock(self.path, self._lock)


def _checked(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if not Path(text).name or "\0" in text:
        raise SocketError(f"{text!r} is no path for a socket", hint="give the path of a file")
    if len(os.fsencode(text)) > MAX_ADDRESS_BYTES:
        reason = f"{text} is too long for a socket: {len(os.fsencode(text))} bytes, where {MAX_ADDRESS_BYTES} fit"
        raise SocketError(reason, hint="choose a shorter path, or a relative one from a folder nearby")
    return Path(text)


def _lock(path: Path) -> int:
    """The locked descriptor of the lock file."""
    while True:
        lock = _open_lock(path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), _lock_path(path).lstat()):
                return lock
        os.close(lock)  # whoever held it before has removed it since


def _open_lock(path: Path) -> int:
    try:
        lock = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except OSError as error:
        hint = "check that its folder exists and may be written"
        raise SocketError(f"{_lock_path(path)} cannot be made: {error.strerror}", hint=hint) from error
    try:
        if stat.S_IMODE(os.fstat(lock).st_mode) != _MODE:
            os.fchmod(lock, _MODE)  # an umask may have taken our own right to it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise _taken(path) from error
    return lock


def _unlock(path: Path, lock: int) -> None:
    with suppress(OSError):
        _lock_path(path).unlink()  # before it is let go, so that nobody locks a file that is about to go
    os.close(lock)


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _clear(path: Path) -> None:
    """See that nothing is at `path`, removing a socket on which nobody listens."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}", hint="check its folder") from error
    if not stat.S_ISSOCK(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "no socket"
        raise SocketError(f"{path} is in the way: it is {what}", hint="remove it, or choose another path")
    if _is_live(path):
        raise _taken(path)
    path.unlink(missing_ok=True)


def _is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (BlockingIOError, TimeoutError):
            return True  # so busy that its queue is full
        except OSError as error:
            reason = f"{path}: whether anyone listens there cannot be told: {error.strerror}"
            raise SocketError(reason, hint="remove it if it is dead, or choose another path") from error
    return True


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # On Linux the file gets the mode that the socket has, less the umask: it is never open to others.
        os.fchmod(listener.fileno(), _MODE)
        listener.bind(str(path))
        if stat.S_IMODE(path.lstat().st_mode) != _MODE:
            path.chmod(_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        hint = "check that its folder exists and may be written"
        raise SocketError(f"{path} cannot be listened on: {error.strerror or error}", hint=hint) from error
    return listener


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _taken(path: Path) -> SocketError:
    hint = "stop it, or choose another path"
    return SocketError(f"{path} is in use: another receiver is listening there", hint=hint)
