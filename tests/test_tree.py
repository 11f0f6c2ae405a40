"""Trees of real owners: each relays what happens below it, until every ancestor's registry equals the truth."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from podledger import (
    Errored,
    Ledger,
    Outbox,
    PodExited,
    PodReclaimed,
    Receiver,
    ScopeRule,
    ShutDown,
    Stamper,
    TurnEnded,
    new_incarnation,
    prepare_spawn,
    send_pod_event,
)
from podledger.services.outbox import Retry
from tests.runner import podledger_json
from tests.sockets import parent_at, short_folder
from tests.waiting import wait_until

FAST = Retry(first_wait_s=0.01, longest_wait_s=0.05)
WRITES = (ScopeRule(target="/srv/app", permission="write"),)
PATH = "/srv/app/a.txt"
DOWN = ("root", "planner", "coder")
"""Three owners, each of which spawned the next."""


class Owner:
    """One owner of a tree, with its ledger, its receiver and its outbox."""

    def __init__(self, name: str, folder: Path, ledger: Ledger) -> None:
        self.name = name
        self.socket = str(folder / f"{name}.sock")
        self.ledger = ledger
        self.stamper = Stamper(new_incarnation())

    async def spawn(self, name: str, socket: str) -> str:
        """Spawn a pod, and record it; return its incarnation."""
        spawn = prepare_spawn(name, self.socket, socket_path=socket, scope=WRITES, stamper=self.stamper)
        await self.ledger.append(spawn.spawned())
        return spawn.incarnation

    async def names(self) -> list[str]:
        """Return the pods in the registry."""
        return [pod.pod_name for pod in await self.ledger.pods()]

    async def holders(self) -> list[str]:
        """Return who may write the file that the tree works on."""
        return [holder.pod_name for holder in await self.ledger.holders(PATH)]

    async def is_settled(self) -> bool:
        """Return whether nothing waits for the parent."""
        return not await self.ledger.count_outbox_items(status="pending")


@contextlib.asynccontextmanager
async def tree(*names: str, top: str | None = None) -> AsyncIterator[list[Owner]]:
    """Run owners, each the parent of the next; the parent of the first listens on `top`."""
    with short_folder() as folder:
        async with contextlib.AsyncExitStack() as stack:
            owners: list[Owner] = []
            for name in names:
                ledger = await stack.enter_async_context(Ledger.open(folder / f"{name}.db", name))
                owner = Owner(name, folder, ledger)
                if parent := owners[-1].socket if owners else top:
                    await ledger.configure(parent_socket=parent)
                    await stack.enter_async_context(Outbox(ledger, retry=FAST, poll_s=0.05))
                await stack.enter_async_context(Receiver(ledger, owner.socket))
                owners.append(owner)
            yield owners


async def settled(owners: Sequence[Owner]) -> None:
    """Wait until nothing waits in any outbox, from the lowest owner up."""
    for owner in reversed(owners):
        await wait_until(owner.is_settled)


async def grown(owners: Sequence[Owner]) -> list[str]:
    """Let each owner spawn the next one, and the last one a pod without a ledger; return the incarnations."""
    lives = [await upper.spawn(lower.name, lower.socket) for upper, lower in itertools.pairwise(owners)]
    lives.append(await owners[-1].spawn("tester", ""))
    await settled(owners)
    return lives


async def test_every_ancestor_sees_the_whole_tree() -> None:
    async with tree(*DOWN) as owners:
        await grown(owners)
        assert [await owner.names() for owner in owners] == [
            ["coder", "planner", "tester"],
            ["coder", "tester"],
            ["tester"],
        ]
        assert await owners[0].holders() == ["tester"]


async def test_when_all_pods_have_exited_every_registry_is_empty() -> None:
    async with tree(*DOWN) as owners:
        await grown(owners)
        for owner, pod in zip(reversed(owners), ("tester", "coder", "planner"), strict=True):
            await owner.ledger.append(PodExited(pod_name=pod, exit_code=0))
        await settled(owners)
        for owner in owners:
            assert (await owner.names(), await owner.holders()) == ([], [owner.name])
            assert (await owner.ledger.verify()).ok
        ends = [entry async for entry in owners[0].ledger.entries(pod="tester", kind="shut_down")]
        relay = ends[0].event.relay
        assert relay is not None
        assert (relay.kind, relay.evidence, relay.ledger) == ("pod_exited", "observed", "planner")


async def test_revived_pod_returns_to_every_registry() -> None:
    async with tree(*DOWN) as owners:
        *_, tester = await grown(owners)
        lowest = owners[-1]
        await lowest.ledger.append(PodReclaimed(pod_name="tester", reason="silent"))
        await settled(owners)
        assert [await owner.names() for owner in owners] == [["coder", "planner"], ["coder"], []]
        await send_pod_event(
            lowest.socket, Errored(pod_name="tester", message="secret"), stamper=Stamper(speaker=tester), confirm=True
        )
        await settled(owners)
        assert await owners[0].names() == ["coder", "planner", "tester"]
        assert "secret" not in (owners[0].ledger.database.path.read_bytes()).decode(errors="replace")


async def test_relayed_event_is_no_notification() -> None:
    async with tree(*DOWN) as owners:
        *_, tester = await grown(owners)
        await send_pod_event(
            owners[-1].socket, ShutDown(pod_name="tester"), stamper=Stamper(speaker=tester), confirm=True
        )
        await settled(owners)
        heard = [[each.event.kind async for each in owner.ledger.entries(pod="tester")][-1] for owner in owners]
        notified = [len(await owner.ledger.notifications("agent")) for owner in owners]
    assert heard == ["shut_down"] * 3
    assert notified == [0, 0, 1]


async def test_plain_parent_receives_no_end(short: Path) -> None:
    async with parent_at(short / "top") as top, tree("planner", top=top.path) as [owner]:
        await owner.spawn("coder", "")
        await owner.ledger.append(PodReclaimed(pod_name="coder", reason="silent"))
        await owner.ledger.append(TurnEnded(pod_name="coder"))
        await owner.ledger.append(ShutDown(pod_name="coder"))
        await settled([owner])
        await owner.spawn("coder", "")
        await settled([owner])
        await wait_until(lambda: len(top.lines) == 2)
        assert [event["kind"] for event in top.events] == ["scope_sub_delegated"] * 2
        first, second = (event["stamp"]["sequence"] for event in top.events)
        assert second == first + 1, "what is skipped uses no sequence number"
        statuses = [item.status for item in await owner.ledger.outbox_items()]
        path = owner.ledger.database.path
        skipped = await asyncio.to_thread(podledger_json, "--db", path, "outbox", "--status", "skipped")
        [doctor] = [
            finding
            for finding in (await asyncio.to_thread(podledger_json, "--db", path, "doctor", status=None))["findings"]
            if finding["check"] == "outbox"
        ]
    assert statuses == ["sent", "skipped", "skipped", "skipped", "sent"]
    assert [item["payload"]["kind"] for item in skipped] == ["shut_down", "turn_ended", "shut_down"]
    assert doctor["level"] == "ok"
