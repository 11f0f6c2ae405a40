"""The rows that the projections should hold: the rules applied to the log again, one pod name or stream at a time.

The rows of each table come in the order of its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Connection, Table, bindparam, case, exists, not_, or_, select

from podledger.core import rules
from podledger.core.errors import ProtocolError
from podledger.core.problem import Problem
from podledger.core.progress import Progress, reported
from podledger.core.rules import UNHEARD, Decision, Logged, Tenure, fact_of
from podledger.core.streams import Part, unbroken
from podledger.core.text import escape
from podledger.store.driver import HotStatement, Row
from podledger.store.log import read_head
from podledger.store.projections import grant_rows, pod_row, tenure_row
from podledger.store.sqlite.engines import encode_list, text_list
from podledger.store.tables import events, grants, is_delegation, names_sender, pods, streams, tenures

Rows = Iterator[tuple[Table, Row]]
"""Rows with their tables, of each table in the order of its key; values in the order of the table's columns."""


def expected_rows(
    connection: Connection, ledger: str, names: Iterable[str] | None = None, progress: Progress | None = None
) -> Rows:
    """Yield the rows of the pods and streams of some names (None: of all), reading only the entries that change them.

    Raises:
        ProtocolError: an entry was altered.
    """
    some = None if names is None else encode_list(names)
    if some is None:
        logged = _read(connection, _CHANGING, {"ledger": ledger})
    else:
        logged = _read(connection, _CHANGING_SOME, {"ledger": ledger, "names": some})
    logged = reported(logged, progress, read_head(connection, ledger).head_seq)
    for pod_name, of_pod in groupby(logged, key=itemgetter(0)):
        yield from _rows(ledger, pod_name, _decisions(ledger, of_pod))
    yield from _stream_rows(connection, ledger, some)


def checked_rows(
    connection: Connection, ledger: str, projects: Callable[[str], bool], on_problem: Callable[[Problem], None]
) -> Rows:
    """Yield the rows of the pods that `projects` accepts; report each entry that the rules do not account for."""
    logged = _read(connection, _ALL, {"ledger": ledger})
    for pod_name, of_pod in groupby(logged, key=itemgetter(0)):
        if projects(pod_name):
            yield from _rows(ledger, pod_name, _checked_decisions(ledger, of_pod, on_problem))
    yield from _stream_rows(connection, ledger, None)


def _stream_rows(connection: Connection, ledger: str, some: str | None) -> Rows:
    """Yield the rows of some streams, as `encode_list` names them, or of all."""
    if some is None:
        arrived = _ARRIVED.pages(connection, {"ledger": ledger})
    else:
        arrived = _ARRIVED_SOME.pages(connection, {"ledger": ledger, "names": some})
    for run in unbroken(cast("Iterator[Part]", arrived)):
        yield streams, (ledger, *run)


def _rows(ledger: str, pod_name: str, decisions: Iterable[Decision]) -> Rows:
    """Yield the rows of one pod name. Only its newest tenure can still change, so the others are yielded at once."""
    state, newest = UNHEARD, None
    for decision in decisions:
        state = decision.state
        for tenure in decision.changed:
            if newest is not None and tenure.from_seq != newest.from_seq:
                yield from _tenure_rows(ledger, newest)
            newest = tenure
    if newest is not None:
        yield from _tenure_rows(ledger, newest)
    if state is not UNHEARD:
        yield pods, pod_row(ledger, pod_name, state)


def _tenure_rows(ledger: str, tenure: Tenure) -> Rows:
    yield tenures, tenure_row(ledger, tenure)
    for row in grant_rows(ledger, tenure):
        yield grants, row


def _decisions(ledger: str, of_pod: Iterable[Logged]) -> Iterator[Decision]:
    state = UNHEARD
    for logged in of_pod:
        if not rules.may_change(state, rules.kind_judged(logged.kind, logged.relayed_kind), logged.subject):
            continue
        decision = rules.fold(state, fact_of(logged, ledger, repeated=logged.repeated))
        state = decision.state
        yield decision


def _checked_decisions(
    ledger: str, of_pod: Iterable[Logged], on_problem: Callable[[Problem], None]
) -> Iterator[Decision]:
    state = UNHEARD
    for logged in of_pod:
        try:
            fact = fact_of(logged, ledger, repeated=logged.repeated)
        except ProtocolError as error:
            on_problem(Problem("payload", logged.seq, error.message))
            continue
        decision = rules.fold(state, fact)
        state = decision.state
        if logged.rules == rules.VERSION and logged.outcome != decision.outcome:
            detail = f"logged as {escape(logged.outcome, 40)!r}, where the rules say {decision.outcome!r}"
            on_problem(Problem("outcome", logged.seq, detail))
        yield decision


def _read(connection: Connection, statement: HotStatement, values: Mapping[str, Any]) -> Iterator[Logged]:
    return map(Logged._make, statement.pages(connection, values))


def _logged(*conditions: ColumnElement[bool]) -> HotStatement:
    """Return the query for the entries that the rules read, sorted by pod name, without payloads that they ignore."""
    query = select(*logged_columns()).where(events.c.ledger == bindparam("ledger"), *conditions)
    return HotStatement(query.order_by(events.c.pod_name, events.c.seq))


def logged_columns() -> list[ColumnElement[Any]]:
    """Return the columns of `Logged`."""
    computed = {"payload": case((is_delegation(), events.c.payload), else_=""), "repeated": _is_repeated()}
    return [computed[field] if field in computed else events.c[field] for field in Logged._fields]


def _is_repeated() -> ColumnElement[bool]:
    """Return the condition that an earlier entry has the same source, sequence and id.

    The `+ 0` keeps SQLite from searching all the earlier entries by the primary key instead of the few by their stamp.
    """
    earlier = events.alias("earlier")
    return exists().where(
        earlier.c.ledger == events.c.ledger,
        earlier.c.source == events.c.source,
        earlier.c.source.is_not(None),
        earlier.c.sequence == events.c.sequence,
        earlier.c.stamp_id == events.c.stamp_id,
        earlier.c.seq + 0 < events.c.seq,
    )


def _can_change() -> ColumnElement[bool]:
    """Return the condition that an entry can change a pod: activity only revives a pod that was reclaimed."""
    reclaimed = events.alias("reclaimed")
    kinds = or_(reclaimed.c.kind == "pod_reclaimed", reclaimed.c.relayed_kind == "pod_reclaimed")
    names = select(reclaimed.c.pod_name).where(reclaimed.c.ledger == bindparam("ledger"), kinds)
    activity = events.c.kind.in_([bindparam(None, kind) for kind in ("turn_ended", "errored")])
    return or_(not_(activity), events.c.pod_name.in_(names))


def _arrived(*conditions: ColumnElement[bool]) -> HotStatement:
    """Return the query for the stamped entries as runs of one number, sorted by stream and number."""
    number, seq = events.c.sequence, events.c.seq
    run = (events.c.source, number, number, seq, seq, case((names_sender(), events.c.pod_name)))
    stamped = (events.c.ledger == bindparam("ledger"), events.c.source.is_not(None))
    return HotStatement(select(*run).where(*stamped, *conditions).order_by(events.c.source, number))


_ALL: Final = _logged()
_CHANGING: Final = _logged(_can_change())
_CHANGING_SOME: Final = _logged(_can_change(), events.c.pod_name.in_(text_list("names")))
_ARRIVED: Final = _arrived()
_ARRIVED_SOME: Final = _arrived(events.c.source.in_(text_list("names")))
