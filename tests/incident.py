"""The ledger of `docs/incident.md`, made by `python -m tests.incident FILE`.

Without FILE, the page is written anew with what its commands print now."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from podledger import (
    Errored,
    Ledger,
    PodReclaimed,
    PodSpawned,
    PodUnreachable,
    ScopeRule,
    ScopeSubDelegated,
    Sender,
    ShutDown,
    Stamp,
    TurnEnded,
)
from podledger.core.events import LedgerEvent, draft
from tests.cli import podledger

PAGE: Final = Path(__file__).parent.parent / "docs" / "incident.md"
PODS: Final = {"root": 1, "planner": 2, "coder": 3, "tester": 4, "scout": 5, "linter": 6, "scribe": 7}
"""The pods in the order in which they were started; a pod's process is 4100 and its number here."""


class Step(NamedTuple):
    """Something that happened: at a time of 3 March 2026, told by a pod, or by the owner where `teller` is None."""

    time: str
    teller: str | None
    sequence: int
    event: LedgerEvent


def life(pod: str) -> str:
    """The incarnation of a pod."""
    return f"019cb3ff-9f0{PODS[pod]}-7000-8000-00000000000{PODS[pod]}"


def at(time: str) -> datetime:
    """That time of the day of the incident."""
    return datetime.fromisoformat(f"2026-03-03T{time}").replace(tzinfo=UTC)


def lent(pod: str, parent: str, *targets: str) -> ScopeSubDelegated:
    """`parent` spawned `pod` and let it write below each target."""
    socket = f"/run/pods/{pod}.sock"
    return ScopeSubDelegated(parent_pod=parent, sub_pod=pod, sub_socket=socket, scope=_writes(*targets))


def spawned(pod: str, *targets: str) -> PodSpawned:
    """The owner spawned `pod`."""
    return PodSpawned(pod_name=pod, socket_path=f"/run/pods/{pod}.sock", scope=_writes(*targets), pid=4100 + PODS[pod])


def _writes(*targets: str) -> tuple[ScopeRule, ...]:
    return tuple(ScopeRule(target=target, permission="write") for target in targets)


GREEN: Final = "3 tests failed\x1b[2K\r\x1b[32mall tests passed\x1b[0m"
"""What the tester printed: a terminal would wipe the first three words away."""

STEPS: Final = (
    Step("13:58:00", "root", 1, spawned("planner", "/srv/app/src")),
    Step("13:58:02", "root", 2, spawned("scout", "/srv/app/docs")),
    Step("13:58:40", "planner", 1, lent("coder", "planner", "/srv/app/src/core")),
    Step("13:59:05", "planner", 2, lent("tester", "planner", "/srv/app/src/tests")),
    Step("13:59:30", "planner", 3, lent("linter", "planner", "/srv/app/src/style")),
    Step("14:00:10", "linter", 1, TurnEnded(pod_name="linter")),
    Step("14:00:42", "coder", 1, TurnEnded(pod_name="coder")),
    Step("14:01:15", "linter", 3, TurnEnded(pod_name="linter")),
    Step("14:02:00", None, 0, PodUnreachable(pod_name="scout", reason="no answer within 0.5 s", attempt=1)),
    Step("14:02:30", None, 0, PodUnreachable(pod_name="scout", reason="no answer within 0.5 s", attempt=2)),
    Step("14:03:00", None, 0, PodUnreachable(pod_name="scout", reason="no answer within 0.5 s", attempt=3)),
    Step("14:03:00", None, 0, PodReclaimed(pod_name="scout", reason="silent for 60 s")),
    Step("14:03:20", "tester", 1, Errored(pod_name="tester", message=GREEN)),
    Step("14:03:40", "root", 3, spawned("scribe", "/srv/app/docs")),
    Step("14:04:10", "scout", 1, TurnEnded(pod_name="scout")),
    Step("14:04:50", "scribe", 1, TurnEnded(pod_name="scribe")),
    Step("14:05:00", None, 0, PodUnreachable(pod_name="linter", reason="connection refused", attempt=1)),
    Step("14:05:30", None, 0, PodUnreachable(pod_name="linter", reason="connection refused", attempt=2)),
    Step("14:06:00", None, 0, PodUnreachable(pod_name="linter", reason="connection refused", attempt=3)),
    Step("14:06:00", None, 0, PodReclaimed(pod_name="linter", reason="silent for 60 s")),
    Step("14:06:45", "coder", 2, ShutDown(pod_name="coder")),
    Step("14:07:30", "planner", 4, TurnEnded(pod_name="planner")),
)


async def make(path: Path) -> None:
    """Make the ledger of the incident at `path`."""
    now = at("13:57:00")
    async with Ledger.open(path, "root", clock=lambda: int(now.timestamp()) * 1_000_000_000) as ledger:
        for step in STEPS:
            now = at(step.time)
            await ledger.commits.append([draft(_stamped(step), ledger.name, sender=_sender(step))])


def _stamped(step: Step) -> LedgerEvent:
    if step.teller is None:
        return step.event
    stamp = Stamp(
        id=f"5eed0000-0000-4000-8000-{PODS[step.teller]:06x}{step.sequence:06x}",
        source=life(step.teller),
        sequence=step.sequence,
        time=f"2026-03-03T{step.time}Z",
        subject=life(step.event.about),
    )
    return step.event.model_copy(update={"stamp": stamp})


def _sender(step: Step) -> Sender | None:
    if step.teller in (None, "root"):
        return None
    return Sender(4100 + PODS[str(step.teller)], 1000, 1000)


_COMMANDS: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)


def written(page: str) -> str:
    """The page with what its commands print now, each run where the ledger of the incident is `podledger.db`."""
    with tempfile.TemporaryDirectory(prefix="podledger-") as folder:
        asyncio.run(make(Path(folder) / "podledger.db"))
        return _COMMANDS.sub(lambda block: f"```console\n{_run(block[1], Path(folder))}```", page)


def _run(block: str, folder: Path) -> str:
    return "".join(_session(line, folder) for line in block.splitlines() if line.startswith("$ podledger "))


def _session(line: str, folder: Path) -> str:
    done = podledger(*shlex.split(line)[2:], folder=folder)
    shown = "\n".join(text.rstrip() for text in (done.out + done.err).splitlines())
    return f"{line}\n{shown}\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(make(Path(sys.argv[1])))
    else:
        PAGE.write_text(written(PAGE.read_text()))
