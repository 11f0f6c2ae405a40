"""The reconciler: probes the sockets of registered pods and reclaims pods that stay unreachable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Connection, select

from podledger.client import sockets
from podledger.core.events import PodReclaimed, PodUnreachable, parse_event
from podledger.core.text import pluralize
from podledger.ledger import Ledger
from podledger.queries.registry import Pod
from podledger.store.tables import events

PROBE_TIMEOUT_S: Final = 0.5
MAX_CONCURRENT_PROBES: Final = 16

Verdict = Literal["alive", "suspected", "reclaimed"]


class ReconcilePolicy(NamedTuple):
    """When to reclaim a pod: after `attempts` consecutive failed probes that span at least `grace_s` seconds."""

    attempts: int = 3
    grace_s: float = 30.0


class ProbeResult(NamedTuple):
    """The result of probing a pod; `attempt` is the number of consecutive failures, 0 if the pod is alive."""

    pod_name: str
    socket_path: str
    verdict: Verdict
    attempt: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the result as `reconcile --json` prints it."""
        return self._asdict()


class FailureStreak(NamedTuple):
    """Consecutive failed probes: how many, and when the first was recorded (microseconds since 1970)."""

    attempts: int = 0
    since_us: int | None = None


class Reconciler:
    """Probes the pods of an open ledger, round by round.

    A pod that answers a probe or sends a report ends its streak of failures. Answers are not recorded as events, so
    only this object remembers them: another reconciler counts failures from the log alone.
    """

    def __init__(self, ledger: Ledger, policy: ReconcilePolicy = ReconcilePolicy()) -> None:  # noqa: B008
        self._ledger = ledger
        self._policy = policy
        self._answered: dict[str, int] = {}

    async def round(self, *, dry_run: bool = False) -> list[ProbeResult]:
        """Probe every registered pod that has a socket, and record failures unless `dry_run` is set.

        Raises:
            StorageError: a failure was not committed.
        """
        pods = [pod for pod in await self._ledger.pods() if pod.socket_path]
        at = (await self._ledger.head()).head_seq
        failures = await _probe_all(pod.socket_path for pod in pods)
        self._answered = {name: seq for name, seq in self._answered.items() if seq <= at}
        results = []
        for pod, failure in zip(pods, failures, strict=True):
            if failure is None:
                self._answered[pod.pod_name] = at
                results.append(ProbeResult(pod.pod_name, pod.socket_path, "alive", 0, ""))
            else:
                results.append(await self._suspect(pod, failure, dry_run=dry_run))
        return results

    async def run(self, every_s: float) -> None:
        """Run a round every `every_s` seconds until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.round()

    async def _suspect(self, pod: Pod, failure: str, *, dry_run: bool) -> ProbeResult:
        after = max(pod.from_seq, self._answered.get(pod.pod_name, 0))
        work = partial(failure_streak, ledger=self._ledger.name, pod_name=pod.pod_name, after=after)
        streak = await self._ledger.read(work)
        attempt = streak.attempts + 1
        waited_s = (time.time_ns() // 1000 - streak.since_us) / 1e6 if streak.since_us else 0.0
        reclaim = attempt >= self._policy.attempts and waited_s >= self._policy.grace_s
        if not dry_run:
            await self._ledger.append(PodUnreachable(pod_name=pod.pod_name, reason=failure, attempt=attempt))
        if not reclaim:
            return ProbeResult(pod.pod_name, pod.socket_path, "suspected", attempt, failure)
        reason = f"unreachable {pluralize(attempt, 'time')} in {waited_s:.0f} s: {failure}"
        if not dry_run:
            await self._ledger.append(PodReclaimed(pod_name=pod.pod_name, reason=reason))
        return ProbeResult(pod.pod_name, pod.socket_path, "reclaimed", attempt, reason)


def failure_streak(connection: Connection, ledger: str, pod_name: str, after: int) -> FailureStreak:
    """Return the consecutive failed probes of a pod since its last report, as recorded after seq `after`."""
    query = (
        select(events.c.kind, events.c.recorded_us, events.c.payload)
        .where(events.c.ledger == ledger, events.c.pod_name == pod_name, events.c.seq > after)
        .order_by(events.c.seq.desc())
    )
    streak = FailureStreak()
    for kind, recorded_us, payload in connection.execute(query):
        event = parse_event(payload) if kind == "pod_unreachable" else None
        if not isinstance(event, PodUnreachable):
            break
        streak = FailureStreak(max(streak.attempts, event.attempt), recorded_us)
        if event.attempt <= 1:
            break
    return streak


async def _probe_all(paths: Iterable[str]) -> list[str | None]:
    gate = asyncio.Semaphore(MAX_CONCURRENT_PROBES)

    async def gated(path: str) -> str | None:
        async with gate:
            return await probe(path)

    return await asyncio.gather(*(gated(path) for path in paths))


async def probe(path: str, timeout_s: float = PROBE_TIMEOUT_S) -> str | None:
    """Connect to a socket and close again; return why that failed, or None."""
    try:
        await asyncio.to_thread(sockets.reach, path, timeout_s=timeout_s)
    except TimeoutError:  # its queue is full: a server listens, but is too busy to accept
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None
