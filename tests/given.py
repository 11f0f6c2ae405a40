"""What tests are given: ledgers with a history, made as a runtime would make them, on a clock that they set."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from podledger import Errored, Ledger, PodSpawned, ScopeRule, ScopeSubDelegated, Sender, ShutDown, Stamp, TurnEnded
from podledger.core.entries import draft
from podledger.core.events import LedgerEvent
from podledger.store.log import Rejection

START_NS = 1_767_225_600_000_000_000
"""The first moment of 2026."""


def ticking(step_s: float = 1.0) -> Iterator[int]:
    """Nanoseconds since 1970, from `START_NS` on, a step further at each look."""
    now = START_NS
    while True:
        yield now
        now += int(step_s * 1e9)


def incarnation(number: int) -> str:
    """The `number`th incarnation, each greater than those before."""
    return f"019b0000-0000-7000-8000-{number:012x}"


def stamp(source: int, sequence: int, subject: int | None = None) -> Stamp:
    """A stamp of the sender `source`, about itself unless `subject` says otherwise."""
    return Stamp(
        id=f"00000000-0000-4000-8000-{source:06x}{sequence:06x}",
        source=incarnation(source),
        sequence=sequence,
        time="2026-01-01T00:00:00Z",
        subject=incarnation(source if subject is None else subject),
    )


def write(*targets: str) -> tuple[ScopeRule, ...]:
    """A scope that lets its pod write below each target."""
    return tuple(ScopeRule(target=target, permission="write") for target in targets)


def history() -> list[LedgerEvent]:
    """A small tree: two children, a grandchild, an error, an ending, and one report too many."""
    return [
        PodSpawned(pod_name="planner", socket_path="/run/planner", scope=write("/srv")),
        PodSpawned(pod_name="scout", socket_path="/run/scout", scope=write("/tmp")),
        ScopeSubDelegated(parent_pod="planner", sub_pod="coder", sub_socket="/run/coder", scope=write("/srv/app")),
        TurnEnded(pod_name="coder"),
        Errored(pod_name="scout", message="\x1b[2J gone, 雪 \u2028 'quoted' \"twice\""),
        ShutDown(pod_name="coder"),
        ShutDown(pod_name="coder"),
        TurnEnded(pod_name="planner"),
    ]


async def a_ledger(path: Path, name: str = "root", events: Sequence[LedgerEvent] | None = None) -> None:
    """Append a history to the ledger at `path`, each event in a transaction, and reject one line."""
    clock = ticking()
    async with Ledger.open(path, name, clock=lambda: next(clock)) as ledger:
        for event in history() if events is None else events:
            sender = Sender(4242, 1000, 1000) if event.kind in ("turn_ended", "errored", "shut_down") else None
            await ledger.commits.append([draft(event, ledger.name, sender=sender)])
        await ledger.commits.append([], [Rejection(b"\xff no event", "not UTF-8 at byte 0", Sender(4242, 1000, 1000))])


def podledger(*args: str | Path, stdin: bytes = b"", ok: int | None = 0) -> subprocess.CompletedProcess[bytes]:
    """Run one command of the command line as a process of its own; `ok` is the exit status that it must have."""
    command = [sys.executable, "-m", "podledger", *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=60)
    assert ok is None or done.returncode == ok, (done.returncode, done.stdout, done.stderr)
    return done


def podledger_json(*args: str | Path, ok: int | None = 0) -> Any:
    """The JSON document that a command prints."""
    return json.loads(podledger(*args, "--json", ok=ok).stdout)
