"""The log folded anew, pod by pod: the rows that the projections should hold, of each table in the order of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Table

from podledger.core import rules, strict_json
from podledger.core.errors import ProtocolError
from podledger.core.events import DELEGATIONS
from podledger.core.problem import Problem
from podledger.core.progress import Progress
from podledger.core.rules import UNHEARD, Decision, Logged, Tenure, fact_of
from podledger.store.driver import Row, pages
from podledger.store.log import read_head
from podledger.store.projections import grant_rows, pod_row, tenure_row
from podledger.store.tables import grants, pods, tenures

EVERY: Final = 10_000
"""How often progress is told."""

Rows = Iterator[tuple[Table, Row]]
"""Rows, each with its table, of each table in the order of its key; values in the order of the table's columns."""


def expected_rows(
    connection: Connection, ledger: str, names: Iterable[str] | None = None, progress: Progress | None = None
) -> Rows:
    """The rows of the pods of some names (None: of all); of the log only what can change them is read.

    Raises:
        ProtocolError: an entry was altered.
    """
    logged = _read(connection, _RELEVANT, {"ledger": ledger, "names": as_json(names)})
    if progress:
        logged = _counted(logged, progress, read_head(connection, ledger).head_seq)
    for pod_name, of_pod in groupby(logged, key=itemgetter(0)):
        yield from _rows(ledger, pod_name, _decisions(ledger, of_pod))


def as_json(names: Iterable[str] | None) -> str | None:
    """Names as a statement takes them that has `OF_NAMES` for a condition."""
    return None if names is None else strict_json.dumps(sorted(names))


OF_NAMES: Final = "(:names IS NULL OR pod_name IN (SELECT value FROM json_each(:names)))"


def checked_rows(
    connection: Connection, ledger: str, folds: Callable[[str], bool], told: Callable[[Problem], None]
) -> Rows:
    """The rows of the pods whose names `folds` takes; `told` is called with each entry that the log has otherwise."""
    logged = _read(connection, _ALL, {"ledger": ledger})
    for pod_name, of_pod in groupby(logged, key=itemgetter(0)):
        if folds(pod_name):
            yield from _rows(ledger, pod_name, _checked_decisions(ledger, of_pod, told))


def _rows(ledger: str, pod_name: str, decisions: Iterable[Decision]) -> Rows:
    """The rows of one pod name. Only the newest of its tenures can still change, so the others are given at once."""
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
        if logged.subject is None and not rules.may_change(state.status, logged.kind):
            continue
        decision = rules.fold(state, fact_of(logged, ledger))
        state = decision.state
        yield decision


def _checked_decisions(ledger: str, of_pod: Iterable[Logged], told: Callable[[Problem], None]) -> Iterator[Decision]:
    state = UNHEARD
    for logged in of_pod:
        try:
            fact = fact_of(logged, ledger)
        except ProtocolError as error:
            told(Problem("payload", logged.seq, error.message))
            continue
        decision = rules.fold(state, fact)
        state = decision.state
        if logged.rules == rules.VERSION and logged.outcome != decision.outcome:
            detail = f"logged as {logged.outcome!r}, where the rules say {decision.outcome!r}"
            told(Problem("outcome", logged.seq, detail))
        yield decision


def _read(connection: Connection, query: str, values: dict[str, Any]) -> Iterator[Logged]:
    return map(Logged._make, pages(connection, query, values))


def _counted(logged: Iterable[Logged], progress: Progress, head: int) -> Iterator[Logged]:
    for number, one in enumerate(logged, 1):
        if number % EVERY == 0:
            progress(number, head)
        yield one
    progress(head, head)


_LOGGED: Final = f"""
SELECT pod_name, seq, kind, evidence, subject, source,
    CASE WHEN kind IN ({", ".join(f"'{kind}'" for kind in sorted(DELEGATIONS))}) THEN payload ELSE '' END,
    outcome, rules
FROM events
WHERE ledger = :ledger AND ({{condition}})
ORDER BY pod_name, seq
"""
_ALL: Final = _LOGGED.format(condition="true")
_RELEVANT: Final = _LOGGED.format(
    condition=f"""{OF_NAMES} AND (
    kind NOT IN ('turn_ended', 'errored') OR subject IS NOT NULL OR pod_name IN (
        SELECT pod_name FROM events WHERE ledger = :ledger AND kind = 'pod_reclaimed'))"""
)
