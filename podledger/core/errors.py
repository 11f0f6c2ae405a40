"""The errors that podledger raises. Each carries a message and a hint.

    PodledgerError
    ├── UsageError               the request makes no sense (exit status 2)
    │   ├── InvalidNameError     a name that no pod, ledger or consumer may have
    │   ├── InvalidMomentError   a moment that is not in the log
    │   ├── InvalidEventError    an event that the caller stated wrongly
    │   └── ReadOnlyError        a write to a database that is for reading only
    ├── ProtocolError            a line or a payload that is not a valid event
    ├── LedgerNotFoundError      no such database, or no such ledger in it
    ├── SchemaError              a database of another version of podledger
    ├── StorageError             the database is full, locked, read-only or unreachable
    │   └── DamagedError         a damaged file, or a file that is not a podledger database
    ├── TimeLimitError           a query that exceeded its time limit
    ├── ChainError               an entry that does not continue a ledger's chain
    ├── SocketError              a socket that the receiver cannot listen on
    └── MissingPackageError      an optional package that is not installed

`store/sqlite` translates driver errors, and keeps the driver's error as `__cause__`.
"""

from __future__ import annotations

DAMAGED_HINT = "run `podledger verify`; restore a backup, or save what is intact with `podledger recover`"
"""The hint of every error about a damaged database."""


class PodledgerError(Exception):
    """The base of all errors that podledger raises: `message` states the failure and its cause, `hint` the remedy."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PodledgerError):
    """Raised if a call or a command line makes no sense, for example if two options exclude each other."""

    exit_status = 2


class InvalidNameError(UsageError, ValueError):
    """Raised if a pod, ledger or consumer name is empty, reserved, too long, or holds a slash or a control character.

    It is a `ValueError` too, so that pydantic reports it as an invalid field.
    """


class InvalidMomentError(UsageError):
    """Raised if a moment is neither a seq of the log nor an aware time, or if a span ends before it starts."""


class InvalidEventError(UsageError):
    """Raised if the caller states an event that is not valid."""


class ReadOnlyError(UsageError):
    """Raised on a write to a database that is for reading only, such as a bundle."""


class ProtocolError(PodledgerError):
    """Raised if a line from a socket or a file, or a stored payload, is not a valid event."""


class LedgerNotFoundError(PodledgerError):
    """Raised if there is no database at the path, if it holds no ledger of that name, or if the name is ambiguous."""


class SchemaError(PodledgerError):
    """Raised if the database has the schema of another version of podledger."""


class StorageError(PodledgerError):
    """Raised if the database is full, locked, read-only, closed or unreachable."""


class DamagedError(StorageError):
    """Raised if the file is damaged or is not a podledger database."""


class TimeLimitError(PodledgerError):
    """Raised if a query exceeds its time limit."""


class ChainError(PodledgerError):
    """Raised if an imported entry does not continue the ledger's chain of digests."""


class SocketError(PodledgerError):
    """Raised if the receiver cannot listen on its socket, or a command cannot reach one."""


class MissingPackageError(PodledgerError):
    """Raised if an operation needs an optional package that is not installed."""
