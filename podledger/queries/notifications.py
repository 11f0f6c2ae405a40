"""Notifications: the events that the agent should know of, after a consumer's cursor, each as one line."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from podledger.core.digest import NO_PAYLOAD
from podledger.core.events import parse_event
from podledger.core.render import render
from podledger.core.times import moment, timestamp
from podledger.store import log
from podledger.store.driver import HotStatement, advancing
from podledger.store.tables import consumers, events

DEFAULT_CONSUMER: Final = "agent"
VISIBLE: Final = ("turn_ended", "errored", "shut_down")
"""The kinds of which an agent is notified."""


class Notification(NamedTuple):
    """One line for the agent, and the entry that it is about; `recorded_us` is in microseconds since 1970 (UTC)."""

    seq: int
    recorded_us: int
    kind: str
    pod_name: str
    line: str

    @property
    def recorded_at(self) -> datetime:
        """When the ledger recorded the entry, in UTC."""
        return moment(self.recorded_us)

    def as_json(self) -> dict[str, Any]:
        """Return the notification as `notifications --json` prints it."""
        return {
            "seq": self.seq,
            "recorded_at": timestamp(self.recorded_us),
            "kind": self.kind,
            "pod_name": self.pod_name,
            "line": self.line,
        }


def unread(connection: Connection, ledger: str, consumer: str, after: int, limit: int) -> list[Notification]:
    """Return the first notifications after the consumer's cursor and after a seq: no duplicates, nothing relayed.

    They are at most `limit`, but at least one, and fewer if they are large.
    """
    after = max(after, cursor(connection, ledger, consumer))
    rows = _UNREAD.page(connection, {"ledger": ledger, "after": after, "limit": limit}, limit)
    return [
        Notification(seq, recorded_us, kind, pod_name, render(parse_event(payload)))
        for seq, recorded_us, kind, pod_name, payload in advancing(rows, 0, after)
    ]


_UNREAD: Final = HotStatement(
    select(events.c.seq, events.c.recorded_us, events.c.kind, events.c.pod_name, events.c.payload)
    .where(events.c.ledger == bindparam("ledger"), events.c.seq > bindparam("after"))
    .where(
        events.c.kind.in_([bindparam(None, kind) for kind in VISIBLE]),
        events.c.outcome != "duplicate",
        events.c.relayed_kind.is_(None),
        events.c.payload != NO_PAYLOAD,
    )
    .order_by(events.c.seq)
    .limit(bindparam("limit"))
)


def cursor(connection: Connection, ledger: str, consumer: str) -> int:
    """Return the seq up to which the consumer has acknowledged, 0 at first."""
    query = select(func.max(consumers.c.cursor)).where(consumers.c.ledger == ledger, consumers.c.name == consumer)
    return connection.execute(query).scalar() or 0


def acknowledge(connection: Connection, ledger: str, consumer: str, seq: int, now_us: int) -> None:
    """Move the consumer's cursor on to `seq`, never back.

    Raises:
        InvalidMomentError: the log does not reach that far.
    """
    head = log.read_head(connection, ledger)
    log.check_within(seq, head.head_seq)
    key = (consumers.c.ledger == ledger, consumers.c.name == consumer)
    known = connection.execute(select(consumers.c.cursor).where(*key)).scalar()
    values = (ledger, consumer, max(seq, known or 0), now_us)
    row = dict(zip(consumers.c.keys(), (*values, log.row_checksum(values)), strict=True))
    if known is not None:
        connection.execute(update(consumers).where(*key), row)
        return
    connection.execute(insert(consumers), row)
    log.write_head(connection, head._replace(consumer_count=head.consumer_count + 1))
