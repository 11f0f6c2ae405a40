"""Times: whole microseconds since 1970 (UTC) in the database, RFC 3339 in text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


MAX_SECONDS: Final = 1_000_000.0
"""The longest time, in seconds, that a limit or an interval may state: eleven days, which every timer can hold."""

EARLIEST_US: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST_US: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The first and the last time that can be written, in the years 1 and 9999."""


def microseconds(moment: datetime) -> int:
    """Return the whole microseconds from the start of 1970 (UTC) to the aware `moment`."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> datetime:
    """Return the time in UTC that is `microseconds` after the start of 1970.

    A time outside the years 1 to 9999, which no ledger records, becomes the first or the last moment of these years.
    """
    return _EPOCH + timedelta(microseconds=min(max(microseconds, EARLIEST_US), LATEST_US))


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
