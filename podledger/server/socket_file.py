"""The receiver's socket file: created with mode 0600 where no process listens, and removed only if it is still ours.

The file `<socket>.lock` next to it is locked as long as the socket is in use, so that of two receivers that start at
the same moment neither takes the socket of the other for a dead one. A receiver that is killed leaves both files; the
next one takes them over.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from podledger.client.sockets import MAX_ADDRESS_BYTES
from podledger.core.errors import SocketError

BACKLOG: Final = 4096
"""How many clients may wait to be accepted. The kernel's own limit may be lower."""

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
        """Listen on `path`, with mode 0600 from the first moment, and replace a dead socket there.

        Raises:
            SocketError: another receiver listens there, something else is in the way, or the path cannot be used.
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
        """Remove the file, unless another has replaced it. Clients that are connected, or wait to be, stay."""
        with suppress(FileNotFoundError):
            if _identity(self.path) == self._identity:
                self.path.unlink()

    def close(self) -> None:
        """Stop listening, and release the path."""
        self.listener.close()
        _unlock(self.path, self._lock)


def _checked(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if not Path(text).name or "\0" in text:
        raise SocketError(f"{text!r} cannot be the path of a socket", hint="give the path of a file")
    if len(os.fsencode(text)) > MAX_ADDRESS_BYTES:
        reason = f"{text} is too long for a socket: {len(os.fsencode(text))} bytes, of at most {MAX_ADDRESS_BYTES}"
        raise SocketError(reason, hint="choose a shorter path, or a relative one from a folder nearby")
    return Path(text)


def _lock(path: Path) -> int:
    """Lock the lock file, and return its descriptor."""
    while True:
        lock = _open_lock(path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), _lock_path(path).lstat()):
                return lock
        os.close(lock)  # the previous holder has removed the file since


def _open_lock(path: Path) -> int:
    try:
        lock = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except OSError as error:
        hint = "check that its folder exists and that you may write there"
        raise SocketError(f"cannot create {_lock_path(path)}: {error.strerror}", hint=hint) from error
    try:
        if stat.S_IMODE(os.fstat(lock).st_mode) != _MODE:
            os.fchmod(lock, _MODE)  # the umask may have removed our own right to it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise _taken(path) from error
    return lock


def _unlock(path: Path, lock: int) -> None:
    with suppress(OSError):
        _lock_path(path).unlink()  # before the lock is released, so that no process locks a file that is being removed
    os.close(lock)


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _clear(path: Path) -> None:
    """Make sure that nothing is at `path`; remove a socket on which no process listens."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(f"cannot look at {path}: {error.strerror}", hint="check its folder") from error
    if not stat.S_ISSOCK(mode):
        what = "a symbolic link" if stat.S_ISLNK(mode) else "not a socket"
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
            return True  # its queue is full, so a process listens
        except OSError as error:
            reason = f"cannot find out whether anybody listens on {path}: {error.strerror}"
            raise SocketError(reason, hint="remove it if it is dead, or choose another path") from error
    return True


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # On Linux the file gets the mode of the socket, less the umask. So it is never open to other users.
        os.fchmod(listener.fileno(), _MODE)
        listener.bind(str(path))
        if stat.S_IMODE(path.lstat().st_mode) != _MODE:
            path.chmod(_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        hint = "check that its folder exists and that you may write there"
        raise SocketError(f"cannot listen on {path}: {error.strerror or error}", hint=hint) from error
    return listener


def _identity(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _taken(path: Path) -> SocketError:
    hint = "stop it, or choose another path"
    return SocketError(f"{path} is in use: another receiver is listening there", hint=hint)
