"""The fallback: probe the sockets of the pods believed alive, suspect the silent, reclaim what stays silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Connection, select

from podledger.client import delivery
from podledger.core.events import PodReclaimed, PodUnreachable, parse_event
from podledger.core.text import pluralize
from podledger.ledger import Ledger
from podledger.queries.registry import Pod
from podledger.store.tables import events

PROBE_TIMEOUT_S: Final = 0.5
PROBES_AT_ONCE: Final = 16

Verdict = Literal["alive", "suspected", "reclaimed"]


class ReconcilePolicy(NamedTuple):
    """When a silent pod is reclaimed: after so many failed probes in a row, over at least so many seconds."""

    attempts: int = 3
    grace_s: float = 30.0


class ProbeResult(NamedTuple):
    """What a probe said of a pod: alive, suspected (with the number of failures in a row), or now reclaimed."""

    pod_name: str
    socket_path: str
    verdict: Verdict
    attempt: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The finding as `reconcile --json` prints it."""
        return self._asdict()


class Streak(NamedTuple):
    """Failed probes in a row: how many, and when the first was recorded (microseconds since 1970)."""

    attempts: int = 0
    since_us: int | None = None


class Reconciler:
    """Probes an open ledger's pods, round by round; a pod that answers starts from nothing again.

    A report of the pod ends a streak of failed probes as an answer does. Answers are not events, so what is remembered
    of them is this object's: rounds of separate objects count failures from the log alone.
    """

    def __init__(self, ledger: Ledger, patience: ReconcilePolicy = ReconcilePolicy()) -> None:  # noqa: B008
        self._ledger = ledger
        self._patience = patience
        self._answered: dict[str, int] = {}

    async def round(self, *, dry_run: bool = False) -> list[ProbeResult]:
        """Probe every open tenure that has a socket; record what that says, or with `dry_run` only tell.

        Raises:
            StorageError: a finding was not committed.
        """
        pods = [pod for pod in await self._ledger.pods() if pod.socket_path]
        at = (await self._ledger.head()).head_seq
        failures = await _probe_all(pod.socket_path for pod in pods)
        self._answered = {name: seq for name, seq in self._answered.items() if seq <= at}
        findings = []
        for pod, failure in zip(pods, failures, strict=True):
            if failure is None:
                self._answered[pod.pod_name] = at
                findings.append(ProbeResult(pod.pod_name, pod.socket_path, "alive", 0, ""))
            else:
                findings.append(await self._suspect(pod, failure, dry_run=dry_run))
        return findings

    async def run(self, every_s: float) -> None:
        """Rounds, `every_s` seconds apart, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.round()

    async def _suspect(self, pod: Pod, failure: str, *, dry_run: bool) -> ProbeResult:
        after = max(pod.from_seq, self._answered.get(pod.pod_name, 0))
        work = partial(streak_of, ledger=self._ledger.name, pod_name=pod.pod_name, after=after)
        streak = await self._ledger.read(work)
        attempt = streak.attempts + 1
        waited_s = (time.time_ns() // 1000 - streak.since_us) / 1e6 if streak.since_us else 0.0
        give_up = attempt >= self._patience.attempts and waited_s >= self._patience.grace_s
        if not dry_run:
            await self._ledger.append(PodUnreachable(pod_name=pod.pod_name, reason=failure, attempt=attempt))
        if not give_up:
            return ProbeResult(pod.pod_name, pod.socket_path, "suspected", attempt, failure)
        reason = f"unreachable {pluralize(attempt, 'time')} in {waited_s:.0f} s: {failure}"
        if not dry_run:
            await self._ledger.append(PodReclaimed(pod_name=pod.pod_name, reason=reason))
        return ProbeResult(pod.pod_name, pod.socket_path, "reclaimed", attempt, reason)


def streak_of(connection: Connection, ledger: str, pod_name: str, after: int) -> Streak:
    """The failed probes of a pod after a seq, since its last report."""
    query = (
        select(events.c.kind, events.c.recorded_us, events.c.payload)
        .where(events.c.ledger == ledger, events.c.pod_name == pod_name, events.c.seq > after)
        .order_by(events.c.seq.desc())
    )
    streak = Streak()
    for kind, recorded_us, payload in connection.execute(query):
        event = parse_event(payload) if kind == "pod_unreachable" else None
        if not isinstance(event, PodUnreachable):
            break
        streak = Streak(max(streak.attempts, event.attempt), recorded_us)
        if event.attempt <= 1:
            break
    return streak


async def _probe_all(paths: Iterable[str]) -> list[str | None]:
    gate = asyncio.Semaphore(PROBES_AT_ONCE)

    async def gated(path: str) -> str | None:
        async with gate:
            return await probe(path)

    return await asyncio.gather(*(gated(path) for path in paths))


async def probe(path: str, timeout_s: float = PROBE_TIMEOUT_S) -> str | None:
    """Connect to a socket and let go; why that failed, or None."""
    try:
        await asyncio.to_thread(delivery.reach, path, timeout_s=timeout_s)
    except TimeoutError:  # its queue is full: somebody listens, and is too busy to accept
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None
