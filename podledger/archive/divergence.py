"""Whether two ledgers of one name are the same record: one the beginning of the other, or parted at some entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from sqlalchemy import Column, Connection, select

from podledger.core.errors import ChainError
from podledger.store.log import Head
from podledger.store.tables import events, rejected


class Copy(NamedTuple):
    """A ledger in some database: where that is, for people, and its row."""

    place: str
    connection: Connection
    head: Head


def check_agree(one: Copy, other: Copy) -> None:
    """See that of two ledgers of one name one is the beginning of the other.

    Raises:
        ChainError: they are not; it names the first entry at which they part.
    """
    seqs = min(one.head.head_seq, other.head.head_seq)
    numbers = min(one.head.rejected_count, other.head.rejected_count)
    for what, column, length in (("seq", events.c.seq, seqs), ("rejected line", rejected.c.number, numbers)):
        parting = first_divergence(length, partial(_alike, one, other, column))
        if parting:
            reason = f"{one.place} and {other.place} hold two ledgers {one.head.name!r} that part at {what} {parting}"
            raise ChainError(reason, hint="collect them into two databases")


def first_divergence(length: int, alike: Callable[[int], bool]) -> int:
    """The first of the numbers 1 to `length` at which two chains are not alike, 0 if none.

    A search by halves: chains that have parted never meet again.
    """
    if length == 0 or alike(length):
        return 0
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if alike(middle) else (low, middle)
    return high


def _alike(one: Copy, other: Copy, column: Column[int], at: int) -> bool:
    return _digest(one, column, at) == _digest(other, column, at)


def _digest(copy: Copy, column: Column[int], at: int) -> str | None:
    digest = column.table.c.digest
    query = select(digest).where(column.table.c.ledger == copy.head.name, column == at)
    return copy.connection.execute(query).scalar()
