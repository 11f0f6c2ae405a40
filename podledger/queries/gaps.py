"""Gaps: the numbers missing from each stamped sender's sequence, which are reports that this ledger never received."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, and_, bindparam, case, func, or_, select

from podledger.queries.moments import Moment, resolve
from podledger.store.tables import events

T = TypeVar("T")


class Gap(NamedTuple):
    """A run of missing sequence numbers, `first` to `last`, of one sender.

    `pod_name` is the sender's if one of its events names it, else None. `after_seq` and `before_seq` are the log's
    entries of the sender's events on either side; `after_seq` is None if the sender's first events are missing.
    """

    source: str
    pod_name: str | None
    first: int
    last: int
    after_seq: int | None
    before_seq: int

    def as_json(self) -> dict[str, Any]:
        """Return the gap as `gaps --json` prints it."""
        return self._asdict()


class Missing(NamedTuple):
    """How many reports are missing, and of how many senders."""

    reports: int
    senders: int


class Answer(NamedTuple, Generic[T]):
    """The result of a query, and how many reports were missing at that moment; both are of one snapshot."""

    found: T
    missing: Missing


def gaps_until(connection: Connection, ledger: str, until: int) -> list[Gap]:
    """Return the gaps in the sequences of the reports that had arrived up to the seq `until`.

    A sender's last events are missing only if a later one, such as its `shut_down`, has a higher number.
    """
    return [Gap(*row) for row in connection.execute(_gaps(), {"ledger": ledger, "until": until}).all()]


def missing_until(connection: Connection, ledger: str, until: int) -> Missing:
    """Count the reports that were missing at the seq `until`."""
    lost = connection.execute(_missing(), {"ledger": ledger, "until": until}).scalars().all()
    return Missing(sum(lost), len(lost))


def gaps_at(connection: Connection, ledger: str, at: Moment) -> list[Gap]:
    """Return the gaps at a moment.

    Raises:
        InvalidMomentError: the moment is not in the log.
    """
    return gaps_until(connection, ledger, resolve(connection, ledger, at))


def missing_at(connection: Connection, ledger: str, at: Moment) -> Missing:
    """Count the reports that were missing at a moment.

    Raises:
        InvalidMomentError: the moment is not in the log.
    """
    return missing_until(connection, ledger, resolve(connection, ledger, at))


_NUMBERED = (
    events.c.ledger == bindparam("ledger"),
    events.c.source.is_not(None),
    events.c.seq <= bindparam("until", type_=BigInteger),
)
"""The conditions of the stamped entries up to a seq."""


def _is_own_report() -> ColumnElement[bool]:
    """Return the condition that a sender reports about its own pod, which names the pod."""
    own = or_(events.c.speaker.is_(None), events.c.speaker == events.c.subject)
    return and_(events.c.kind.in_(("turn_ended", "errored", "shut_down")), events.c.relayed_kind.is_(None), own)


def _gaps() -> Select[Any]:
    arrived = (
        select(
            events.c.source,
            events.c.sequence,
            func.min(events.c.seq).label("seq"),
            func.max(case((_is_own_report(), events.c.pod_name))).label("pod_name"),
        )
        .where(*_NUMBERED)
        .group_by(events.c.source, events.c.sequence)
        .cte("arrived")
    )
    source, sequence = arrived.c.source, arrived.c.sequence
    before = func.lag(sequence, 1, 0).over(partition_by=source, order_by=sequence)
    after_seq = func.lag(arrived.c.seq).over(partition_by=source, order_by=sequence)
    ordered = select(
        source,
        sequence,
        arrived.c.seq,
        func.max(arrived.c.pod_name).over(partition_by=source).label("pod_name"),
        before.label("before"),
        after_seq.label("after_seq"),
    ).cte("ordered")
    first, last = ordered.c.before + 1, ordered.c.sequence - 1
    return (
        select(ordered.c.source, ordered.c.pod_name, first, last, ordered.c.after_seq, ordered.c.seq)
        .where(first <= last)
        .order_by(ordered.c.seq, ordered.c.source)
    )


def _missing() -> Select[Any]:
    """Return the query for how many reports of each sender are missing, left to Python to add up without overflow."""
    lost = func.max(events.c.sequence) - func.count(events.c.sequence.distinct())
    return select(lost).where(*_NUMBERED).group_by(events.c.source).having(lost > 0)
