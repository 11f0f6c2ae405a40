"""Find where two ledgers of one name diverge. If one is the beginning of the other, they do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Column, select

from podledger.core.errors import ChainError
from podledger.integrity.witnesses import Copy
from podledger.store.tables import events, rejected


def check_no_divergence(one: Copy, other: Copy) -> None:
    """Check that one of two ledgers of one name is the beginning of the other.

    Raises:
        ChainError: they diverge; the message names the first entry that differs.
    """
    seqs = min(one.head.head_seq, other.head.head_seq)
    numbers = min(one.head.rejected_count, other.head.rejected_count)
    for what, column, length in (("seq", events.c.seq, seqs), ("rejected line", rejected.c.number, numbers)):
        if at := first_divergence(length, partial(_is_alike, one, other, column)):
            reason = f"{one.place} and {other.place} hold two ledgers {one.head.name!r} that diverge at {what} {at}"
            raise ChainError(reason, hint="collect them into two databases")


def first_divergence(length: int, is_alike: Callable[[int], bool]) -> int:
    """Return the first of the numbers 1 to `length` at which two chains differ, or 0.

    Each digest covers the one before, so chains that differ once differ up to their end: a binary search finds where.
    """
    if length == 0 or is_alike(length):
        return 0
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_alike(middle) else (low, middle)
    return high


def _is_alike(one: Copy, other: Copy, column: Column[int], at: int) -> bool:
    return _digest(one, column, at) == _digest(other, column, at)


def _digest(copy: Copy, column: Column[int], at: int) -> str | None:
    digest = column.table.c.digest
    query = select(digest).where(column.table.c.ledger == copy.head.name, column == at)
    return copy.connection.execute(query).scalar()
