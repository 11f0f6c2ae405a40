"""The ledger of `docs/incident.md`: `python -m tests.incident FILE` creates it.

Without FILE, rewrite that page and `docs/commands.md`, which uses the same ledger, with the current output of their
commands.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from podledger import (
    Errored,
    Ledger,
    PodReclaimed,
    PodSpawned,
    PodUnreachable,
    ScopeSubDelegated,
    Sender,
    ShutDown,
    Stamp,
    TurnEnded,
)
from podledger.core.entries import draft
from podledger.core.events import LedgerEvent
from tests.clocks import Clock
from tests.given import writes
from tests.runner import podledger

PAGE: Final = Path(__file__).parent.parent / "docs" / "incident.md"
COMMANDS_PAGE: Final = PAGE.with_name("commands.md")
PODS: Final = {"root": 1, "planner": 2, "coder": 3, "tester": 4, "scout": 5, "linter": 6, "scribe": 7}
"""The pods in the order in which they started. The process id of a pod is 4100 plus its number."""


class Step(NamedTuple):
    """An event at a time of 3 March 2026, sent by a pod, or inferred by the owner if `sender` is None."""

    time: str
    sender: str | None
    sequence: int
    event: LedgerEvent


def incarnation(pod: str) -> str:
    """Return the incarnation of a pod."""
    return f"019cb3ff-9f0{PODS[pod]}-7000-8000-00000000000{PODS[pod]}"


def at(time: str) -> int:
    """Return that time on the day of the incident, in seconds since 1970."""
    return int(datetime.fromisoformat(f"2026-03-03T{time}Z").timestamp())


def lent(pod: str, parent: str, *targets: str) -> ScopeSubDelegated:
    """Return the event that `parent` spawned `pod` and lent it write access to each target."""
    socket = f"/run/pods/{pod}.sock"
    return ScopeSubDelegated(parent_pod=parent, sub_pod=pod, sub_socket=socket, scope=writes(*targets))


def spawned(pod: str, *targets: str) -> PodSpawned:
    """Return the event that the owner spawned `pod`."""
    return PodSpawned(pod_name=pod, socket_path=f"/run/pods/{pod}.sock", scope=writes(*targets), pid=4100 + PODS[pod])


HIDDEN: Final = "3 tests failed\x1b[2K\r\x1b[32mall tests passed\x1b[0m"
"""The message of `tester`: a terminal would erase its first three words."""

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
    Step("14:03:20", "tester", 1, Errored(pod_name="tester", message=HIDDEN)),
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


async def create(path: Path) -> None:
    """Create the ledger of the incident at `path`."""
    clock = Clock(at("13:57:00"), step_s=0)
    async with Ledger.open(path, "root", clock=clock) as ledger:
        for step in STEPS:
            clock.now_s = at(step.time)
            await ledger.commits.append([draft(_stamped(step), ledger.name, sender=_sender(step))])


def _stamped(step: Step) -> LedgerEvent:
    if step.sender is None:
        return step.event
    stamp = Stamp(
        id=f"5eed0000-0000-4000-8000-{PODS[step.sender]:06x}{step.sequence:06x}",
        source=incarnation(step.sender),
        sequence=step.sequence,
        time=f"2026-03-03T{step.time}Z",
        subject=incarnation(step.event.about),
    )
    return step.event.model_copy(update={"stamp": stamp})


def _sender(step: Step) -> Sender | None:
    if step.sender in (None, "root"):
        return None
    return Sender(4100 + PODS[str(step.sender)], 1000, 1000)


_COMMANDS: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)


def with_output(page: str) -> str:
    """Run the commands of a page on the ledger of the incident; return the page with their output."""
    with tempfile.TemporaryDirectory(prefix="podledger-") as folder:
        asyncio.run(create(Path(folder) / "podledger.db"))
        return _COMMANDS.sub(lambda block: f"```console\n{_run(block[1], Path(folder))}```", page)


def _run(block: str, folder: Path) -> str:
    return "".join(_session(line, folder) for line in block.splitlines() if line.startswith("$ podledger "))


def _session(line: str, folder: Path) -> str:
    done = podledger(*shlex.split(line)[2:], folder=folder, status=None)
    output = "\n".join(text.rstrip() for text in (done.out + done.err).splitlines())
    return f"{line}\n{output}\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(create(Path(sys.argv[1])))
    else:
        for page in (PAGE, COMMANDS_PAGE):
            page.write_text(with_output(page.read_text()))
