"""Checks of one ledger: its log, its clock, its outbox, its rejected lines, its gaps and its mirror."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, literal_column, select

from podledger.core.errors import DAMAGED_HINT
from podledger.core.text import escape, pluralize
from podledger.core.times import timestamp
from podledger.doctor import procfs
from podledger.doctor.finding import Finding, Level, guarded
from podledger.integrity.coverage import read_coverage
from podledger.integrity.scan import losses, scan
from podledger.queries.gaps import missing_until
from podledger.store import log
from podledger.store.outbox_rows import count_outbox
from podledger.store.tables import events, outbox

AHEAD_S: Final = 5.0
SKEW_S: Final = 300.0
STUCK_OUTBOX_S: Final = 60.0
RECENT: Final = 1_000
"""How many stamped events are compared with the clock."""

MAX_LISTED: Final = 20
"""How many faults of one check are listed."""


def ledger_findings(connection: Connection, name: str) -> Iterator[Finding]:
    """Yield the findings about one ledger."""
    checks: dict[str, Callable[[Connection, str], Iterator[Finding]]] = {
        "log": _log_findings,
        "clock": _clock_findings,
        "outbox": _outbox_findings,
        "rejected": _rejected_findings,
        "gaps": _gap_findings,
        "mirror": _mirror_findings,
    }
    for check, work in checks.items():
        for finding in guarded(check, partial(work, connection, name)):
            yield finding._replace(detail=f"{escape(name, 60)}: {finding.detail}")


def _log_findings(connection: Connection, name: str) -> Iterator[Finding]:
    coverage = read_coverage(connection)
    if not coverage.is_whole:
        yield Finding("log", "ok", f"{escape(coverage.describe(), 200)}; `podledger verify` checks its chain")
        return
    lost = list(losses(scan(connection, name)))
    for first, last, reason in lost[:MAX_LISTED]:
        run = f"seq {first}" if first == last else f"seq {first} to {last}"
        yield Finding("log", "error", f"{run}: {reason}", DAMAGED_HINT)
    if not lost:
        entries = pluralize(log.read_head(connection, name).head_seq, "entry", "entries")
        yield Finding("log", "ok", f"the chain holds: {entries}")


def _clock_findings(connection: Connection, name: str) -> Iterator[Finding]:
    head_us, now_us = log.read_head(connection, name).head_us, time.time_ns() // 1000
    if head_us > now_us + AHEAD_S * 1e6:
        detail = f"the last entry was recorded at {timestamp(head_us)}, {(head_us - now_us) / 1e6:,.0f} s from now"
        yield Finding("clock", "error", detail, "set the clock; until that time has passed, every entry gets it")
        return
    stamped = (events.c.ledger == name, events.c.sent_us.is_not(None))
    recent = select(events.c.sent_us, events.c.recorded_us).where(*stamped).order_by(events.c.seq.desc()).limit(RECENT)
    times = recent.subquery()
    skew_us, count = connection.execute(
        select(func.max(func.abs(times.c.sent_us - times.c.recorded_us)), func.count()).select_from(times)
    ).one()
    if (skew_us or 0) > SKEW_S * 1e6:
        detail = (
            f"among the last {pluralize(count, 'stamped event')}, one was sent {skew_us / 1e6:,.0f} s before or after "
            "it was recorded"
        )
        yield Finding("clock", "warning", detail, "compare the clocks of the pods' machines, or expect late reports")
    else:
        yield Finding("clock", "ok", "the times of the log and of the senders agree with the clock")


def _outbox_findings(connection: Connection, name: str) -> Iterator[Finding]:
    if refused := count_outbox(connection, name, status="refused"):
        fix = "list them with `podledger outbox --status refused`, then discard them with `podledger outbox --discard`"
        yield Finding("outbox", "warning", f"the parent refused {pluralize(refused, 'report')}", fix)
    pending = (outbox.c.ledger == name, outbox.c.status == literal_column("'pending'"))
    query = select(func.count(), func.min(outbox.c.created_us), func.max(outbox.c.last_error)).where(*pending)
    count, oldest_us, failure = connection.execute(query).one()
    if not count:
        yield Finding("outbox", "ok", "no report waits for the parent")
        return
    age_s = time.time() - oldest_us / 1e6
    detail = f"waiting for the parent: {pluralize(count, 'report')}, the oldest for {age_s:,.0f} s"
    if failure:
        detail += f"; the last attempt failed: {escape(failure, 200)}"
    level: Level = "error" if age_s > STUCK_OUTBOX_S else "warning" if failure else "ok"
    fix = "run `podledger serve`, and check that the parent listens; `podledger outbox` lists the reports"
    yield Finding("outbox", level, detail, "" if level == "ok" else fix)


def _rejected_findings(connection: Connection, name: str) -> Iterator[Finding]:
    count = log.read_head(connection, name).rejected_count
    if not count:
        yield Finding("rejected", "ok", "every received line was an event")
        return
    last = log.read_rejected(connection, name, after=count - 1, limit=1)
    reason = f"; the last one: {escape(last[0].reason, 200)}" if last else ""
    detail = f"{pluralize(count, 'received line')} held no event{reason}"
    yield Finding("rejected", "warning", detail, "see `podledger rejected`")


def _gap_findings(connection: Connection, name: str) -> Iterator[Finding]:
    missing, senders = missing_until(connection, name, log.read_head(connection, name).head_seq)
    if missing:
        detail = f"{pluralize(missing, 'stamped report')} of {pluralize(senders, 'sender')} never arrived"
        yield Finding("gaps", "warning", detail, "see `podledger gaps`")
    else:
        yield Finding("gaps", "ok", "no stamped report is missing")


def _mirror_findings(connection: Connection, name: str) -> Iterator[Finding]:
    mirror = log.read_head(connection, name).mirror
    if mirror is None:
        return
    if fault := procfs.file_fault(Path(mirror)):
        yield Finding("mirror", "error", f"{mirror} {fault.detail}", fault.fix)
    else:
        yield Finding("mirror", "ok", f"only its owner can read {mirror}")
