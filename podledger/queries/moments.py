"""Moments of a log: a seq, a time or now, and the seq that each names."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection

from podledger.core.errors import InvalidMomentError
from podledger.core.times import microseconds
from podledger.store import log

Moment = int | datetime | None
"""A seq of the log, an aware time, or None for now."""


class Instant(NamedTuple):
    """The seq that a moment names, and the last seq of the log."""

    seq: int
    head: int


def instant(connection: Connection, ledger: str, at: Moment) -> Instant:
    """Find a moment in the log. A time names the last seq recorded up to it.

    Raises:
        InvalidMomentError: a seq that the log does not hold, or a time without a zone.
    """
    head = log.read_head(connection, ledger).head_seq
    if at is None:
        return Instant(head, head)
    if isinstance(at, int):
        return Instant(log.check_within(at, head), head)
    if not isinstance(at, datetime):
        raise InvalidMomentError(f"{at!r} is no moment", hint="give a seq, an aware datetime, or None for now")
    if at.tzinfo is None:
        raise InvalidMomentError(f"the time {at.isoformat()} has no zone", hint="give an aware datetime")
    return Instant(log.seq_at(connection, ledger, microseconds(at)), head)


def resolve(connection: Connection, ledger: str, at: Moment) -> int:
    """Return the seq that a moment names.

    Raises:
        InvalidMomentError: a seq that the log does not hold, or a time without a zone.
    """
    return instant(connection, ledger, at).seq


def span(connection: Connection, ledger: str, since: Moment, until: Moment) -> tuple[int, int]:
    """Return the first and the last seq from one moment to another, both included.

    Raises:
        InvalidMomentError: a moment is not in the log.
    """
    last = resolve(connection, ledger, until)
    if since is None:
        return 1, last
    if isinstance(since, datetime):
        return log.seq_at(connection, ledger, microseconds(since) - 1) + 1, last
    head = log.read_head(connection, ledger).head_seq
    return max(1, since if since == head + 1 else log.check_within(since, head)), last


def parse_moment(text: str) -> int | datetime:
    """Read a seq, or a time in ISO 8601; a time without an offset is UTC.

    Raises:
        InvalidMomentError: the text is neither.
    """
    if text.isascii() and text.isdigit():
        return int(text[:20])
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        hint = "give a number, or a time like 2026-01-31T14:03:00Z"
        raise InvalidMomentError(f"{text[:60]!r} is neither a seq nor a time", hint=hint) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
