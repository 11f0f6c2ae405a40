"""Times: whole microseconds since 1970 in UTC, and their text as RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def check_time(text: str) -> str:
    """Return `text` if it is a time as in RFC 3339.

    Raises:
        ValueError: it is none.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError("not a time as in RFC 3339")
    microseconds(datetime.fromisoformat(text.upper()))
    return text


def microseconds(moment: datetime) -> int:
    """Whole microseconds from the start of 1970 (UTC) to the aware `moment`."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """The time in UTC that is `microseconds` after the start of 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def timestamp(microseconds: int) -> str:
    """That time as RFC 3339, always in UTC and with six decimals, so that its text sorts as time does."""
    return moment(microseconds).isoformat(timespec="microseconds").replace("+00:00", "Z")
