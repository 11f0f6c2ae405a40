"""Small ledgers with every kind of row, and a runner for the command line in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from podledger import Errored, Ledger, PodSpawned, ScopeRule, ScopeSubDelegated, ShutDown, Stamper, TurnEnded
from podledger.cli import main
from podledger.core.events import LedgerEvent
from podledger.core.fields import Stamp
from podledger.store.log import Rejection

OWNER = "root"
SOURCE = "0198f000-0000-7000-8000-000000000001"


Count = Callable[[str, object], None]
"""The type of the fixture `record_property`; the totals are printed at the end of a run."""


class CommandResult(NamedTuple):
    """The output and exit status of a command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*argv: str | Path) -> CommandResult:
    """Run a podledger command in this process, on a thread without an event loop."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), ThreadPoolExecutor(1) as thread:
        status = thread.submit(main, [str(argument) for argument in argv]).result()
    return CommandResult(status, out.getvalue(), err.getvalue())


def spawned(name: str, *targets: str) -> PodSpawned:
    scope = tuple(ScopeRule(target=target, permission="write") for target in targets or ("/w",))
    return PodSpawned(pod_name=name, socket_path=f"/run/{name}.sock", scope=scope)


def story(rounds: int) -> list[LedgerEvent]:
    """Return a history that touches every kind of row: tenures that open and close, duplicates, stamps, a gap."""
    stamper = Stamper(SOURCE)
    events: list[LedgerEvent] = []
    for number in range(rounds):
        name = f"pod-{number % 5}"
        stamp = Stamp.model_validate(stamper.stamp(SOURCE))
        stamper.stamp(SOURCE)
        events += [
            spawned(name, f"/w/{number}"),
            ScopeSubDelegated(parent_pod=name, sub_pod=f"{name}-sub", sub_socket="/run/s", scope=()),
            Errored(pod_name=name, message=f"message {number} " + "x" * 200),
            TurnEnded(pod_name="stamped", stamp=stamp),
            ShutDown(pod_name=name),
        ]
    return events


async def make_ledger(path: Path, rounds: int = 8) -> int:
    """Make a ledger with five entries a round, rejected lines, an outbox and a cursor; return its last seq."""
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.configure(parent_socket="/run/nobody.sock")
        entries = [await ledger.append(event) for event in story(rounds)]
        await ledger.commits.append([], [Rejection(b"garbage \xff", "not JSON", None)] * 3)
        await ledger.acknowledge(3, "agent")
        return entries[-1].seq


SEED = int(os.environ.setdefault("PODLEDGER_SEED", str(random.SystemRandom().randrange(1, 1 << 32))))
"""The first seed of random tests. It is printed; set PODLEDGER_SEED to repeat a run.

It is kept in the environment, so that all processes of one run share it.
"""


def seeds(count: int) -> list[int]:
    """Return the seeds of `count` rounds, from PODLEDGER_SEED on."""
    return [SEED + number for number in range(count)]
