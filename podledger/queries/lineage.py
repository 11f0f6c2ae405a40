"""Lineage: the parent tenure of a tenure, and the line of its ancestors up to the owner.

The parent is the newest tenure of the incarnation that delegated the tenure (`speaker`), if it is known here. Otherwise
it is the tenure of the delegating pod (`delegated_by`) that was open when this one opened, else the owner. This module
alone states how a parent is found; other queries use its conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    case,
    column,
    func,
    literal,
    select,
    values,
)

from podledger.queries.spans import LEDGER, SEQ
from podledger.store.driver import HotStatement
from podledger.store.tables import events, is_stamped_delegation, open_at, tenures

MAX_DEPTH: Final = 1000
"""How many ancestors of a pod are followed."""

MAX_CHILDREN: Final = 512
"""For how many tenures one query finds the ancestors."""


class Ancestor(NamedTuple):
    """One step up from a tenure: the ancestor's tenure, and whether it was open."""

    pod_name: str
    from_seq: int
    is_open: bool


def is_named_parent(parent: FromClause, child: FromClause) -> ColumnElement[bool]:
    """Return the condition that `parent` is a tenure of the pod that the delegation of `child` names as parent."""
    return and_(parent.c.ledger == LEDGER, parent.c.pod_name == child.c.parent_pod)


def is_delegating_pod(parent: FromClause, child: FromClause) -> ColumnElement[bool]:
    """Return the condition that `parent` is a tenure of the pod that delegated `child`."""
    return and_(parent.c.ledger == LEDGER, parent.c.pod_name == child.c.delegated_by)


def is_speaker(parent: FromClause, child: FromClause) -> ColumnElement[bool]:
    """Return the condition that `parent` is a tenure of the incarnation that delegated `child`."""
    return and_(parent.c.ledger == LEDGER, parent.c.incarnation == child.c.speaker)


def delegates_speaker(child: FromClause) -> ColumnElement[bool]:
    """Return the condition that an entry delegates the incarnation that delegated `child`."""
    return and_(events.c.ledger == LEDGER, events.c.subject == child.c.speaker, is_stamped_delegation(events))


def lineage(
    connection: Connection, ledger: str, seq: int, children: Sequence[tuple[str, int]]
) -> dict[int, list[Ancestor]]:
    """Return the ancestors at `seq` of tenures (each a name and a `from_seq`), by `from_seq`, nearest first.

    A line that comes back to a tenure ends before it.
    """
    parents: dict[int, Ancestor] = {}
    for start in range(0, len(children), MAX_CHILDREN):
        some = children[start : start + MAX_CHILDREN]
        size = 1 << (len(some) - 1).bit_length()
        starts: dict[str, Any] = {"ledger": ledger, "seq": seq}
        for number in range(size):
            starts[f"name{number}"], starts[f"from{number}"] = some[number] if number < len(some) else ("", 0)
        for child, name, from_seq, is_open in _parents(size).fetch(connection, starts):
            parents[child] = Ancestor(name, from_seq, bool(is_open))
    return {from_seq: _line(from_seq, parents) for _, from_seq in children}


def _line(child: int, parents: Mapping[int, Ancestor]) -> list[Ancestor]:
    """Return the ancestors of a tenure, without those after a tenure that was there before."""
    line: list[Ancestor] = []
    seen, at = {child}, parents.get(child)
    while at is not None and at.from_seq not in seen and len(line) < MAX_DEPTH:
        line.append(at)
        seen.add(at.from_seq)
        at = parents.get(at.from_seq)
    return line


@cache
def _parents(size: int) -> HotStatement:
    """Return the query for the parents of `size` tenures and of all their ancestors.

    Each pair of child and parent comes once, however many lines lead through it: so a circle ends, and many deep lines
    cost no more than the tenures on them. `size` is a power of two so that there are few such queries.
    """
    pairs: list[tuple[Any, ...]] = [(bindparam(f"name{number}"), bindparam(f"from{number}")) for number in range(size)]
    starts = values(column("pod_name", Text), column("from_seq", Integer)).data(pairs).cte("starts")
    opened = tenures.alias("opened")
    line = (
        select(literal(0).label("child"), *_step(opened))
        .join_from(starts, opened, and_(opened.c.pod_name == starts.c.pod_name, opened.c.from_seq == starts.c.from_seq))
        .where(opened.c.ledger == LEDGER)
        .cte("line", recursive=True)
    )
    line = line.union(_above(line))
    return HotStatement(
        select(line.c.child, line.c.pod_name, line.c.from_seq, open_at(line, SEQ)).where(line.c.child > 0)
    )


def _above(line: FromClause) -> Select[Any]:
    """Return one step up each line: the newest tenure of the speaker, else the delegating pod's if it was open."""
    speaker, named, same = (tenures.alias(name) for name in ("speaker", "named", "same"))
    newest = _last(line, same, is_speaker(same, line), same.c.from_seq <= SEQ)
    before = _last(line, same, is_delegating_pod(same, line), same.c.from_seq < line.c.from_seq)
    of_speaker = and_(is_speaker(speaker, line), speaker.c.from_seq == newest)
    of_name = and_(
        named.c.ledger == LEDGER,
        named.c.pod_name == case((newest.is_(None), line.c.delegated_by)),  # a null key costs no lookup
        named.c.from_seq == before,
        open_at(named, line.c.from_seq),
    )
    columns = [func.coalesce(one, other) for one, other in zip(_step(speaker), _step(named), strict=True)]
    found = func.coalesce(speaker.c.from_seq, named.c.from_seq).is_not(None)
    step = select(line.c.from_seq, *columns).select_from(line)
    return step.outerjoin(speaker, of_speaker).outerjoin(named, of_name).where(found)


def _last(line: FromClause, same: FromClause, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
    """Return the `from_seq` of the last tenure that meets the conditions."""
    return select(func.max(same.c.from_seq)).where(*conditions).correlate(line).scalar_subquery()


def _step(tenure: FromClause) -> list[ColumnElement[Any]]:
    return [tenure.c[name] for name in ("pod_name", "from_seq", "speaker", "delegated_by", "until_seq")]


def nearest_open(line: Sequence[Ancestor]) -> Ancestor | None:
    """Return the nearest ancestor that was open, or None if only the owner is left."""
    return next((ancestor for ancestor in line if ancestor.is_open), None)
