"""The ledger that the fault tests damage: small, with every kind of row."""

from __future__ import annotations

from pathlib import Path

from podledger import Ledger, Stamper, TurnEnded
from podledger.core.events import LedgerEvent
from podledger.core.fields import Stamp
from podledger.store.log import Rejection
from tests.given import OWNER, delegated, errored, spawned, stopped, writes

SOURCE = "0198f000-0000-7000-8000-000000000001"


def story(rounds: int) -> list[LedgerEvent]:
    """Return a history that touches every kind of row: tenures that open and close, duplicates, stamps, a gap."""
    stamper = Stamper(SOURCE)
    events: list[LedgerEvent] = []
    for number in range(rounds):
        name = f"pod-{number % 5}"
        stamp = Stamp.model_validate(stamper.stamp(SOURCE))
        stamper.stamp(SOURCE)
        events += [
            spawned(name, f"/run/{name}.sock", writes(f"/w/{number}")),
            delegated(f"{name}-sub", parent=name),
            errored(name, f"message {number} " + "x" * 200),
            TurnEnded(pod_name="stamped", stamp=stamp),
            stopped(name),
        ]
    return events


async def make_sample(path: Path, rounds: int = 8) -> int:
    """Make a ledger with five entries a round, rejected lines, an outbox and a cursor; return its last seq."""
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.configure(parent_socket="/run/nobody.sock")
        entries = [await ledger.append(event) for event in story(rounds)]
        await ledger.commits.append([], [Rejection(b"garbage \xff", "not JSON", None)] * 3)
        await ledger.acknowledge(3, "agent")
        return entries[-1].seq
