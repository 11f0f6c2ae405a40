"""Times: whole microseconds since 1970 (UTC) in the database, RFC 3339 in text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def microseconds(moment: datetime) -> int:
    """Return the whole microseconds from the start of 1970 (UTC) to the aware `moment`."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return the time in UTC that is `microseconds` after the start of 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def timestamp(microseconds: int) -> str:
    """Return a time as RFC 3339, in UTC with six decimals, so that the texts sort as the times do."""
    return moment(microseconds).isoformat(timespec="microseconds").replace("+00:00", "Z")


def rfc3339_microseconds(text: str) -> int:
    """Return the microseconds since 1970 of an RFC 3339 time.

    Raises:
        ValueError: the text is not an RFC 3339 time, or its date does not exist.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError("not an RFC 3339 time")
    return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND
