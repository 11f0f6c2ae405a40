"""Gaps: the numbers missing from each stamped sender's sequence, which are reports that this ledger never received."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, bindparam, case, func, literal_column, select

from podledger.queries.moments import Moment, resolve
from podledger.store.driver import HotStatement
from podledger.store.tables import events, names_sender, streams

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


def gaps_at(connection: Connection, ledger: str, at: Moment) -> list[Gap]:
    """Return the gaps in the sequences of the reports that had arrived at a moment, by the entry after each gap.

    A sender's last events are missing only if a later one, such as its `shut_down`, has a higher number. The gaps of
    the present are kept; those of the past are read from the log.

    Raises:
        InvalidMomentError: the moment is not in the log.
    """
    if at is None:
        return _gaps_from(_GAPS.fetch(connection, {"ledger": ledger}))
    return gaps_until(connection, ledger, resolve(connection, ledger, at))


def gaps_until(connection: Connection, ledger: str, until: int) -> list[Gap]:
    """Return the gaps in the sequences of the reports that had arrived up to the seq `until`, from the log."""
    return _gaps_from(_PAST_GAPS.fetch(connection, {"ledger": ledger, "until": until}))


def missing_at(connection: Connection, ledger: str, at: Moment) -> Missing:
    """Count the reports that were missing at a moment.

    Raises:
        InvalidMomentError: the moment is not in the log.
    """
    if at is None:
        return _missing_from(_MISSING.fetch(connection, {"ledger": ledger}))
    return missing_until(connection, ledger, resolve(connection, ledger, at))


def missing_until(connection: Connection, ledger: str, until: int) -> Missing:
    """Count the reports that were missing at the seq `until`, from the log."""
    return _missing_from(_PAST_MISSING.fetch(connection, {"ledger": ledger, "until": until}))


def _gaps_from(rows: Iterable[Sequence[Any]]) -> list[Gap]:
    return [Gap(*row) for row in rows]


def _missing_from(rows: Iterable[Sequence[Any]]) -> Missing:
    """Add up in Python, without overflow."""
    lost = [number for (number,) in rows]
    return Missing(sum(lost), len(lost))


def _kept() -> Select[Any]:
    """Return the query for the runs of the streams that have a gap."""
    after_gap = streams.alias("after_gap").c
    with_gaps = select(after_gap.source).where(after_gap.ledger == bindparam("ledger"), after_gap.first > _ONE)
    return select(streams).where(streams.c.ledger == bindparam("ledger"), streams.c.source.in_(with_gaps))


def _arrived() -> Select[Any]:
    """Return the query for the numbers that had arrived up to a seq, each as a run."""
    number, seq = events.c.sequence, func.min(events.c.seq)
    pod_name = func.max(case((names_sender(), events.c.pod_name)))
    run = (number.label("first"), number.label("last"), seq.label("first_seq"), seq.label("last_seq"))
    return (
        select(events.c.source, *run, pod_name.label("pod_name"))
        .where(
            events.c.ledger == bindparam("ledger"),
            events.c.source.is_not(None),
            events.c.seq <= bindparam("until", type_=BigInteger),
        )
        .group_by(events.c.source, number)
    )


def _gaps(runs: Select[Any]) -> HotStatement:
    """Return the query for the gaps between runs."""
    run = runs.cte("run").c
    ordered = select(
        run.source,
        func.max(run.pod_name).over(partition_by=run.source).label("pod_name"),
        (func.lag(run.last, 1, 0).over(partition_by=run.source, order_by=run.first) + 1).label("missing_from"),
        (run.first - 1).label("missing_to"),
        func.lag(run.last_seq).over(partition_by=run.source, order_by=run.first).label("after_seq"),
        run.first_seq.label("before_seq"),
    ).cte("ordered")
    gap = ordered.c
    found = select(ordered).where(gap.missing_from <= gap.missing_to)
    return HotStatement(found.order_by(gap.before_seq, gap.source))


def _missing(runs: Select[Any]) -> HotStatement:
    """Return the query for how many reports of each sender are missing."""
    run = runs.cte("run").c
    lost = func.max(run.last) - func.sum(run.last - run.first + 1)
    return HotStatement(select(lost).group_by(run.source).having(lost > 0))


_ONE: Final[ColumnElement[int]] = literal_column("1")
"""The first number of a stream. A parameter would hide from SQLite that the index of the streams with gaps serves."""

_GAPS: Final = _gaps(_kept())
_PAST_GAPS: Final = _gaps(_arrived())
_MISSING: Final = _missing(_kept())
_PAST_MISSING: Final = _missing(_arrived())
