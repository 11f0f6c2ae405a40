"""The reconciler: checks that registered pods are alive, and reclaims those that stay unreachable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from podledger.client import sockets
from podledger.core.events import PodReclaimed, PodUnreachable
from podledger.core.paths import is_absolute
from podledger.core.text import pluralize
from podledger.host.processes import liveness
from podledger.ledger import Ledger
from podledger.queries.registry import Pod
from podledger.queries.streaks import NO_STREAK, FailureStreak, failure_streaks

PROBE_TIMEOUT_S: Final = 0.5
MAX_CONCURRENT_PROBES: Final = 16

Verdict = Literal["alive", "suspected", "reclaimed", "unknown"]


class ReconcilePolicy(NamedTuple):
    """When to reclaim a pod: after `attempts` consecutive failed probes that span at least `grace_s` seconds."""

    attempts: int = 3
    grace_s: float = 30.0


class ProbeResult(NamedTuple):
    """The result of probing a pod; `attempt` is the number of consecutive failures, 0 if there is none.

    A pod whose verdict is `unknown` could not be checked from here. That is no failure, and it is never reclaimed.
    """

    pod_name: str
    socket_path: str
    verdict: Verdict
    attempt: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the result as `reconcile --json` prints it."""
        return self._asdict()


class Check(NamedTuple):
    """What one look at a pod found, and the reason, empty if the pod is alive."""

    found: Literal["alive", "failed", "unknown"]
    reason: str = ""


class Reconciler:
    """Checks the pods of an open ledger, round by round.

    A pod that answers a probe or sends a report ends its streak of failures. Answers are not recorded as events, so
    only this object remembers them: another reconciler counts failures from the log alone.
    """

    def __init__(self, ledger: Ledger, policy: ReconcilePolicy = ReconcilePolicy()) -> None:  # noqa: B008
        self._ledger = ledger
        self._policy = policy
        self._answered: dict[str, int] = {}

    async def round(self, *, dry_run: bool = False) -> list[ProbeResult]:
        """Check every registered pod with a socket or a known process; record failures unless `dry_run` is set.

        Raises:
            StorageError: a failure was not committed.
        """
        pods = [pod for pod in await self._ledger.pods() if pod.socket_path or pod.pid is not None]
        at = (await self._ledger.head()).head_seq
        checks = await _check_all(pods)
        self._answered = {name: seq for name, seq in self._answered.items() if seq <= at}
        self._answered |= {pod.pod_name: at for pod, check in zip(pods, checks, strict=True) if check.found == "alive"}
        streaks = await self._streaks([pod for pod, check in zip(pods, checks, strict=True) if check.found == "failed"])
        results = []
        for pod, check in zip(pods, checks, strict=True):
            if check.found == "failed":
                streak = streaks.get(pod.pod_name, NO_STREAK)
                results.append(await self._suspect(pod, check.reason, streak, dry_run=dry_run))
            else:
                results.append(ProbeResult(pod.pod_name, pod.socket_path, check.found, 0, check.reason))
        return results

    async def run(self, every_s: float) -> None:
        """Run a round every `every_s` seconds until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.round()

    async def _streaks(self, failed: Sequence[Pod]) -> dict[str, FailureStreak]:
        after = {pod.pod_name: max(pod.from_seq, self._answered.get(pod.pod_name, 0)) for pod in failed}
        return await self._ledger.read(partial(failure_streaks, ledger=self._ledger.name, after=after))

    async def _suspect(self, pod: Pod, failure: str, streak: FailureStreak, *, dry_run: bool) -> ProbeResult:
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


async def _check_all(pods: Sequence[Pod]) -> list[Check]:
    gate = asyncio.Semaphore(MAX_CONCURRENT_PROBES)

    async def gated(pod: Pod) -> Check:
        async with gate:
            return await check(pod)

    return await asyncio.gather(*(gated(pod) for pod in pods))


async def check(pod: Pod) -> Check:
    """Look whether a pod is alive: by its socket, or if it has none by its process."""
    if not pod.socket_path:
        return _check_process(pod)
    if not is_absolute(pod.socket_path):
        return Check("unknown", "its socket was reported as a relative path, so its place is unknown")
    failure = await probe(pod.socket_path)
    return Check("alive") if failure is None else Check("failed", failure)


def _check_process(pod: Pod) -> Check:
    """Look whether a pod's process runs. Its start distinguishes it from a later process with the same pid."""
    if pod.pid is None or pod.start is None:
        return Check("unknown", f"process {pod.pid} did not run when its spawn was recorded")
    match liveness(pod.pid, pod.start):
        case "running":
            return Check("alive")
        case "gone":
            return Check("failed", f"process {pod.pid} has exited")
        case "unknown":
            return Check("unknown", f"process {pod.pid} is hidden, or belongs to another pid namespace")


async def probe(path: str, timeout_s: float = PROBE_TIMEOUT_S) -> str | None:
    """Connect to a socket and close again; return why that failed, or None."""
    try:
        await asyncio.to_thread(sockets.reach, path, timeout_s=timeout_s)
    except TimeoutError:  # its queue is full: a server listens, but is too busy to accept
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None
