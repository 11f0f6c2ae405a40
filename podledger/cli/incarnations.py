"""Incarnations on the command line: the check of an argument that names one."""

from __future__ import annotations

from podledger.core.errors import UsageError


def checked_incarnation(text: str) -> str:
    """Return the incarnation in lower case.

    Raises:
        UsageError: the text is not a UUIDv7.
    """
    import uuid  # the import takes a tenth of the time of `send`, which needs it only for this

    try:
        incarnation = uuid.UUID(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not an incarnation", hint="give a UUIDv7") from error
    if incarnation.version != 7:
        raise UsageError(f"{text!r} is not a UUIDv7", hint="give the incarnation that the pod was spawned with")
    return str(incarnation)
