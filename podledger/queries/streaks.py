"""Streaks of failed probes, counted from the log: how often in a row a pod was found unreachable, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from podledger.core.events import PodUnreachable, parse_event
from podledger.store.driver import HotStatement
from podledger.store.sqlite.engines import encode_list, text_list
from podledger.store.tables import events


class FailureStreak(NamedTuple):
    """Consecutive failed probes: how many, and when the first was recorded (microseconds since 1970)."""

    attempts: int = 0
    since_us: int | None = None


NO_STREAK: Final = FailureStreak()


def failure_streaks(connection: Connection, ledger: str, after: Mapping[str, int]) -> dict[str, FailureStreak]:
    """Return the consecutive failed probes of pods since their last other event, each as recorded after a seq.

    `after` holds that seq by pod name. However many pods there are, this reads the log after the first seq twice.
    """
    if not after:
        return {}
    values = {"ledger": ledger, "names": encode_list(after), "after": min(after.values())}
    last_other: dict[str, int] = dict(_LAST_OTHER.fetch(connection, values))
    streaks: dict[str, FailureStreak] = {}
    over: set[str] = set()
    for name, seq, recorded_us, payload in _FAILURES.fetch(connection, values):  # newest first
        if name in over or seq <= max(after[name], last_other.get(name, 0)):
            continue
        event = parse_event(payload)
        if isinstance(event, PodUnreachable):
            streak = streaks.get(name, NO_STREAK)
            streaks[name] = FailureStreak(max(streak.attempts, event.attempt), recorded_us)
        if not isinstance(event, PodUnreachable) or event.attempt <= 1:
            over.add(name)
    return streaks


_OF_PODS: Final = (
    events.c.ledger == bindparam("ledger"),
    events.c.seq > bindparam("after"),
    events.c.pod_name.in_(text_list("names")),
)
_LAST_OTHER: Final = HotStatement(
    select(events.c.pod_name, func.max(events.c.seq))
    .where(*_OF_PODS, events.c.kind != bindparam("unreachable", "pod_unreachable"))
    .group_by(events.c.pod_name)
)
_FAILURES: Final = HotStatement(
    select(events.c.pod_name, events.c.seq, events.c.recorded_us, events.c.payload)
    .where(*_OF_PODS, events.c.kind == bindparam("unreachable", "pod_unreachable"))
    .order_by(events.c.seq.desc())
)
