"""Test a whole tree of owners against an independent model: once it is quiet, every owner knows the truth below it.

The model follows the real life of the pods. Each owner has a ledger of its own, and learns only what arrives: the
reports of its children, from several processes each, and the relays of those children that are owners themselves.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from podledger.core import strict_json
from podledger.core.events import WIRE_EVENT, LedgerEvent, read_event
from podledger.store.outbox_rows import read_outbox
from tests.given import OWNER, exited, incarnation, reclaimed, spawned, stopped, turned, writes
from tests.support import Bench

MAX_DEPTH = 5
SEEDS = range(0, 60, 2)
"""The trees that are tried; the tree of a greater seed does more."""

PROCESSES = 3
"""How many processes report for one pod."""


@dataclass
class Run:
    """One run of a pod that exists: its incarnation, the pod that spawned it, and the path that it may write."""

    name: str
    number: int
    parent: Run | None
    path: str
    children: list[Run] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """How many pods are above it."""
        return 0 if self.parent is None else self.parent.depth + 1

    def below(self) -> list[Run]:
        """Return every pod below it that runs."""
        return [run for child in self.children for run in (child, *child.below())]


class World:
    """A tree of pods at work, the ledgers of all its owners, and the reports on their way.

    `in_order` delivers the reports of each pod in the order in which it sent them, as a held connection does; otherwise
    they arrive in any order.
    """

    def __init__(self, choice: random.Random, *, in_order: bool) -> None:
        self.choice = choice
        self.in_order = in_order
        self.root = Run(OWNER, 1, None, "/w")
        self.ledgers = {OWNER: Bench()}
        self.parents: dict[str, str] = {}
        self.mail: dict[str, list[LedgerEvent]] = {}
        self._numbers = count(2)
        self._sequences: dict[str, int] = {}
        self._relayed: dict[str, int] = {}

    def work(self, steps: int) -> None:
        """Let the tree do something, `steps` times; reports arrive meanwhile."""
        for _ in range(steps):
            act = self.choice.choice([self.spawn, self.spawn, self.report, self.end, self.doubt, self.arrive])
            act()

    def spawn(self) -> None:
        """A pod spawns another one, under a new name or under that of a pod that has ended."""
        parent = self.choice.choice([run for run in (self.root, *self.root.below()) if run.depth < MAX_DEPTH])
        running = {run.name for run in self.root.below()}
        ended = [name for name, above in self.parents.items() if above == parent.name and name not in running]
        name = self.choice.choice([f"p{len(self.parents)}", *ended])
        run = Run(name, next(self._numbers), parent, f"{parent.path}/{name}")
        if self.in_order:
            self._drain(name)
        self.parents[name] = parent.name
        parent.children.append(run)
        self._ledger(parent).append(self._stamped(spawned(name, scope=writes(run.path)), run, parent, "owner"))

    def report(self) -> None:
        """A process of a pod reports a turn; some reports are lost."""
        if runs := self.root.below():
            run = self.choice.choice(runs)
            event = self._stamped(turned(run.name), run, run, f"process {self.choice.randrange(PROCESSES)}")
            if self.choice.random() < 0.8:
                self._post(run, event)

    def end(self) -> None:
        """A pod without children ends; it reports that, or its owner sees it, or both."""
        if runs := [run for run in self.root.below() if not run.children]:
            run = self.choice.choice(runs)
            assert run.parent is not None
            run.parent.children.remove(run)
            how = self.choice.choice(["reported", "seen", "both"])
            if how != "seen":
                self._post(run, self._stamped(stopped(run.name), run, run, "process 0"))
            if how != "reported":
                if self.in_order:  # the owner reads a pod's connection to its end before it sees the pod exit
                    self._drain(run.name)
                self._ledger(run.parent).append(self._stamped(exited(run.name), run, run.parent, "owner"))

    def doubt(self) -> None:
        """An owner reclaims a pod that is only silent, and the pod reports after all."""
        if self.in_order and (runs := self.root.below()):
            run = self.choice.choice(runs)
            assert run.parent is not None
            self._ledger(run.parent).append(self._stamped(reclaimed(run.name), run, run.parent, "owner"))
            self._post(run, self._stamped(turned(run.name), run, run, "process 0"))

    def arrive(self) -> None:
        """A report arrives at the owner that spawned its sender."""
        self._relay()
        if senders := [name for name, events in self.mail.items() if events]:
            self._deliver(self.choice.choice(senders))

    def settle(self) -> None:
        """Let everything arrive that was not lost."""
        self._relay()
        while any(self.mail.values()):
            self.arrive()
            self._relay()

    def _deliver(self, name: str) -> None:
        """Deliver a report of a pod to the owner that spawned it, perhaps twice."""
        events = self.mail[name]
        event = events.pop(0 if self.in_order else self.choice.randrange(len(events)))
        for _ in range(self.choice.choice([1, 1, 2])):
            self.ledgers[self.parents[name]].append(event)

    def _drain(self, name: str) -> None:
        """Deliver the reports of a pod, and before them those of the pods that it spawned."""
        for child in [child for child, parent in self.parents.items() if parent == name]:
            self._drain(child)
        self._relay()
        while self.mail.get(name):
            self._deliver(name)

    def _ledger(self, run: Run) -> Bench:
        if run.name not in self.ledgers:
            self.ledgers[run.name] = Bench(owner=run.name, parent=f"/run/{self.parents[run.name]}")
        return self.ledgers[run.name]

    def _relay(self) -> None:
        """Send the reports that the owners owe their parents."""
        for name, ledger in self.ledgers.items():
            for item in read_outbox(ledger.connection, name, after=self._relayed.get(name, 0)):
                self._relayed[name] = item.number
                fields = strict_json.loads(item.payload)
                stamp = self._stamp(f"{name} relays", fields["stamp"]["subject"], None)
                self.mail.setdefault(name, []).append(read_event(WIRE_EVENT, fields | {"stamp": stamp}))

    def _post(self, run: Run, event: LedgerEvent) -> None:
        self.mail.setdefault(run.name, []).append(event)

    def _stamped(self, event: LedgerEvent, about: Run, speaker: Run, process: str) -> LedgerEvent:
        stamp = self._stamp(f"{speaker.number} {process}", incarnation(about.number), incarnation(speaker.number))
        fields = strict_json.loads(event.payload()) | {"stamp": stamp}
        return type(event).model_validate(fields)

    def _stamp(self, stream: str, subject: str | None, speaker: str | None) -> dict[str, Any]:
        sequence = self._sequences[stream] = self._sequences.get(stream, 0) + 1
        number = list(self._sequences).index(stream)
        stamp = {
            "id": f"00000000-0000-4000-8000-{number:06x}{sequence:06x}",
            "source": f"{number:08x}-0000-7000-9000-000000000000",
            "sequence": sequence,
            "time": "2026-01-31T14:03:00Z",
        }
        known = {"subject": subject, "speaker": speaker}
        return stamp | {name: value for name, value in known.items() if value is not None}


def check(world: World) -> None:
    """Check that the ledger of each owner that runs shows the pods below it as they are."""
    for owner in (world.root, *world.root.below()):
        if owner.name in world.ledgers:
            ledger, runs = world.ledgers[owner.name], owner.below()
            assert ledger.tree() == {run.name: run.parent.name for run in runs if run.parent}
            for run in (owner, *runs):
                assert [holder.pod_name for holder in ledger.holders(f"{run.path}/f")] == [run.name]
            assert ledger.verify().ok


def anomalies(world: World) -> list[tuple[Any, ...]]:
    """Return the anomalies in all ledgers."""
    return [row for ledger in world.ledgers.values() for row in ledger.sql("SELECT what, pod_name FROM anomalies")]


@pytest.mark.parametrize("seed", SEEDS)
def test_owners_agree_with_the_tree_whatever_the_order(seed: int) -> None:
    world = World(random.Random(seed), in_order=False)
    world.work(seed)
    world.settle()
    check(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_reports_in_order_leave_nothing_flagged(seed: int) -> None:
    world = World(random.Random(seed), in_order=True)
    world.work(seed)
    world.settle()
    check(world)
    assert {what for what, _ in anomalies(world)} <= {"revived"}
