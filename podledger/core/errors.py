"""The error tree: everything podledger raises on purpose.

    PodledgerError
    ├── UsageError               what was asked for makes no sense (exit status 2)
    │   ├── InvalidNameError     no pod or ledger may bear that name
    │   ├── InvalidMomentError   no sequence number and no time, or one beyond the log
    │   ├── InvalidEventError    a local fact that is not well formed
    │   └── ReadOnlyError        a database that is for reading only
    ├── ProtocolError            a line from a socket or a file that is no event
    ├── LedgerNotFoundError      no such database, or no such ledger in it
    ├── SchemaError              the database is of another version of podledger
    ├── StorageError             the database refused: full, busy, read-only, unreachable
    │   └── DamagedError         the file is damaged, or no podledger database
    ├── TimeLimitError           a query that took longer than it may
    ├── ChainError               an entry does not continue the ledger's chain
    ├── SocketError              the receiver's socket cannot be had
    └── MissingPackageError      an optional package is not installed

The store translates the driver's errors, and keeps each as the `__cause__`.
"""

from __future__ import annotations

DAMAGED_HINT = "run `podledger verify`; restore a backup, or save what holds with `podledger recover`"
"""How to go on with a damaged database."""


class PodledgerError(Exception):
    """A failure with its reason and, as `hint`, the mend."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PodledgerError):
    """What was asked for makes no sense."""

    exit_status = 2


class InvalidNameError(UsageError, ValueError):
    """No pod, ledger or consumer may bear that name."""


class InvalidMomentError(UsageError):
    """Neither a sequence number of the log nor a time."""


class InvalidEventError(UsageError):
    """A local fact that is not well formed."""


class ReadOnlyError(UsageError):
    """A database that is for reading only."""


class ProtocolError(PodledgerError):
    """A line that is no event; `message` says why."""


class LedgerNotFoundError(PodledgerError):
    """No such database, or no such ledger in it."""


class SchemaError(PodledgerError):
    """The database was written by another version of podledger."""


class StorageError(PodledgerError):
    """The database refused: full, busy, read-only or out of reach."""


class DamagedError(StorageError):
    """The file is damaged, or is no podledger database."""


class TimeLimitError(PodledgerError):
    """A query that took longer than it may."""


class ChainError(PodledgerError):
    """An entry does not continue the ledger's chain."""


class SocketError(PodledgerError):
    """The receiver's socket cannot be had."""


class MissingPackageError(PodledgerError):
    """An optional package is not installed."""
