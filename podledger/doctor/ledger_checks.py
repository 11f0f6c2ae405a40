"""What the doctor says of a ledger: its log, its clock, its outbox, what it rejected and what it missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from podledger.bundle.check import read_bundle
from podledger.core.errors import DAMAGED_HINT
from podledger.core.text import escape, pluralize
from podledger.core.times import timestamp
from podledger.doctor import procfs
from podledger.doctor.finding import Finding, Level, guarded
from podledger.integrity.scan import losses, scan
from podledger.queries.gaps import gaps_until
from podledger.store import log

AHEAD_S: Final = 5.0
SKEW_S: Final = 300.0
SLOW_OUTBOX_S: Final = 60.0
STUCK_OUTBOX_S: Final = 600.0
RECENT: Final = 1_000
MOST_TOLD: Final = 20


def ledger_findings(connection: Connection, name: str) -> Iterator[Finding]:
    """What is to be said of one ledger."""
    checks: dict[str, Callable[[Connection, str], Iterator[Finding]]] = {
        "log": _log_findings,
        "clock": _clock_findings,
        "outbox": _outbox_findings,
        "rejected": _rejected_findings,
        "gaps": _gap_findings,
        "mirror": _mirror_findings,
    }
    for check, work in checks.items():
        for finding in guarded(check, lambda work=work: work(connection, name)):  # type: ignore[misc]
            yield finding._replace(detail=f"{escape(name, 60)}: {finding.detail}")


def _log_findings(connection: Connection, name: str) -> Iterator[Finding]:
    if read_bundle(connection):
        yield Finding("log", "ok", "a bundle, whose chain `podledger verify` checks")
        return
    lost = list(losses(scan(connection, name)))
    for first, last, reason in lost[:MOST_TOLD]:
        run = f"seq {first}" if first == last else f"seq {first} to {last}"
        yield Finding("log", "error", f"{run}: {reason}", DAMAGED_HINT)
    if not lost:
        entries = pluralize(log.read_head(connection, name).head_seq, "entry", "entries")
        yield Finding("log", "ok", f"the chain holds: {entries}")


def _clock_findings(connection: Connection, name: str) -> Iterator[Finding]:
    head_us, now_us = log.read_head(connection, name).head_us, time.time_ns() // 1000
    if head_us > now_us + AHEAD_S * 1e6:
        detail = f"the last entry was recorded at {timestamp(head_us)}, {(head_us - now_us) / 1e6:,.0f} s from now"
        yield Finding("clock", "error", detail, "set the clock; until it is past, all entries get that time")
        return
    query = (
        "SELECT max(abs(sent_us - recorded_us)), count(*) FROM (SELECT sent_us, recorded_us FROM main.events "
        "WHERE ledger = :ledger AND sent_us IS NOT NULL ORDER BY seq DESC LIMIT :recent)"
    )
    skew, counted = connection.execute(text(query), {"ledger": name, "recent": RECENT}).one()
    if (skew or 0) > SKEW_S * 1e6:
        detail = f"of the last {counted} stamped events one says it was sent {skew / 1e6:,.0f} s off its recording"
        yield Finding("clock", "warning", detail, "compare the clocks of the pods' machines; or it came very late")
    else:
        yield Finding("clock", "ok", "the log's times and the senders' agree with the clock")


def _outbox_findings(connection: Connection, name: str) -> Iterator[Finding]:
    query = "SELECT status, count(*), min(created_us) FROM main.outbox WHERE ledger = :ledger GROUP BY status"
    rows = {status: (count, first) for status, count, first in connection.execute(text(query), {"ledger": name})}
    pending, oldest_us = rows.get("pending", (0, 0))
    age_s = time.time() - oldest_us / 1e6 if pending else 0.0
    level: Level = "error" if age_s > STUCK_OUTBOX_S else "warning" if age_s > SLOW_OUTBOX_S else "ok"
    fix = "run `podledger serve`, and see that the parent listens" if level != "ok" else ""
    detail = "no report waits for the parent"
    if pending:
        detail = f"waiting for the parent: {pluralize(pending, 'report')}, the oldest for {age_s:,.0f} s"
    yield Finding("outbox", level, detail, fix)
    dropped = rows.get("dropped", (0, 0))[0]
    if dropped:
        yield Finding("outbox", "warning", f"given up: {pluralize(dropped, 'report')}", "look at the parent's receiver")


def _rejected_findings(connection: Connection, name: str) -> Iterator[Finding]:
    count = log.read_head(connection, name).rejected_count
    last = log.read_rejected(connection, name, after=count - 1, limit=1) if count else []
    detail = "every line that came was an event"
    if last:
        detail = f"{pluralize(count, 'line')} came without an event, the last: {escape(last[0].reason, 200)}"
    yield Finding("rejected", "warning" if count else "ok", detail, "see `podledger rejected`" if count else "")


def _gap_findings(connection: Connection, name: str) -> Iterator[Finding]:
    gaps = gaps_until(connection, name, log.read_head(connection, name).head_seq)
    missing = sum(gap.last - gap.first + 1 for gap in gaps)
    senders = len({gap.source for gap in gaps})
    detail = "no stamped report is missing"
    if gaps:
        detail = f"{pluralize(missing, 'stamped report')} of {pluralize(senders, 'sender')} never came"
    yield Finding("gaps", "warning" if gaps else "ok", detail, "see the view `gaps`" if gaps else "")


def _mirror_findings(connection: Connection, name: str) -> Iterator[Finding]:
    mirror = log.read_head(connection, name).mirror
    if mirror is None:
        return
    objection = procfs.objection(Path(mirror))
    detail = f"{mirror} {objection}" if objection else f"{mirror} is its owner's alone"
    yield Finding("mirror", "error" if objection else "ok", detail, f"chmod 600 {mirror}" if objection else "")
