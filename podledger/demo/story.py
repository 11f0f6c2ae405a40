"""The demonstration: a receiver and a small tree of real processes that report to it, well and badly.

Run as a module, this file is one of those processes: it does what it is told on standard input, line by line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podledger.client import sender
from podledger.core import strict_json
from podledger.core.stamps import INCARNATION_VARIABLE, Stamper, new_incarnation

if TYPE_CHECKING:
    from podledger.ledger import Ledger

OWNER = "root"
STEP_TIMEOUT_S = 10.0


class Child:
    """A real process of the tree, told what to do."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.socket = str(folder / f"{name}.sock")
        self.incarnation = new_incarnation()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process; return when it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "podledger.demo.story", self.name, self.socket),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {INCARNATION_VARIABLE: self.incarnation},
        )
        await self._answer()

    async def do(self, verb: str, parent_socket: str, **fields: Any) -> None:
        """Have the process carry out one step; return when it has."""
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018 - started before
        order = {"verb": verb, "socket": parent_socket, "fields": fields}
        self._process.stdin.write(strict_json.dumps(order).encode() + b"\n")
        await self._answer()

    async def kill(self) -> None:
        """End the process without a word."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def _answer(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 - started before
        await asyncio.wait_for(self._process.stdout.readline(), STEP_TIMEOUT_S)


def run(show: Callable[[Ledger], Awaitable[None]]) -> None:
    """Play the story in a temporary folder, then call `show` with the open ledger. The folder is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="podledger-") as folder:
        asyncio.run(_play(Path(folder), show))


async def _play(folder: Path, show: Any) -> None:
    from podledger.ledger import Ledger
    from podledger.server.receiver import Receiver

    socket_path = str(folder / "root.sock")
    children = {name: Child(name, folder) for name in ("planner", "coder", "tester", "scout")}
    async with Ledger.open(folder / "podledger.db", OWNER) as ledger, Receiver(ledger, socket_path):
        try:
            for child in children.values():
                await child.start()
            await _tell_story(ledger, socket_path, children)
        finally:
            for child in children.values():
                await child.kill()
        await show(ledger)


async def _tell_story(ledger: Ledger, root: str, children: dict[str, Child]) -> None:
    planner, coder, tester, scout = children.values()
    await _spawn(ledger, planner, "write:/srv/app")
    await _spawn(ledger, coder, "write:/srv/app/src")
    await _spawn(ledger, tester, "read:/srv/app")

    async def heard(child: Child, verb: str, **fields: Any) -> None:
        """One step whose report arrives, and is committed before the next."""
        head = (await ledger.head()).head_seq
        await child.do(verb, root, **fields)
        await _until_head(ledger, head + 1)

    await heard(planner, "send", kind="turn_ended", pod_name="planner")
    await heard(scout, "send", kind="turn_ended", pod_name="scout")  # before anyone said that there is a scout
    scope = [{"target": "/srv/app/docs", "permission": "write", "recursive": True}]
    delegation = {"parent_pod": "planner", "sub_pod": "scout", "sub_socket": scout.socket, "scope": scope}
    await heard(planner, "send", kind="scope_sub_delegated", about=scout.incarnation, **delegation)
    await heard(planner, "again")  # the very same report
    await heard(coder, "send", kind="errored", pod_name="coder", message="tests failed\n\x1b[2J\x1b[31mall is well")
    await coder.do("lose", root, kind="turn_ended", pod_name="coder")  # stamped, and never sent
    await coder.do("hold", root, kind="turn_ended", pod_name="coder")  # stamped now, sent too late
    await heard(coder, "send", kind="shut_down", pod_name="coder")
    await heard(coder, "release")
    await tester.kill()
    await _reclaim(ledger)


async def _spawn(ledger: Ledger, child: Child, rule: str) -> None:
    from podledger.core.events import PodSpawned
    from podledger.core.fields import ScopeRule, Stamp

    permission, _, target = rule.partition(":")
    scope = (ScopeRule.model_validate({"target": target, "permission": permission}),)
    stamp = Stamp.naming(child.incarnation)
    await ledger.append(PodSpawned(pod_name=child.name, socket_path=child.socket, scope=scope, stamp=stamp))


async def _reclaim(ledger: Ledger) -> None:
    """Two rounds of the fallback, without the patience that it has in earnest."""
    from podledger.services.reconciler import ReconcilePolicy, Reconciler

    reconciler = Reconciler(ledger, ReconcilePolicy(attempts=2, grace_s=0.0))
    await reconciler.round()
    await reconciler.round()


async def _until_head(ledger: Ledger, seq: int) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while (await ledger.head()).head_seq < seq:
            await asyncio.sleep(0.005)


def _be_child(name: str, socket_path: str) -> None:
    """Listen as a pod does, and do what standard input says."""
    stamper = Stamper()
    held: dict[str, bytes] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(socket_path)
        listening.listen()
        print(name, flush=True)
        for line in sys.stdin:
            order = strict_json.loads(line)
            _step(order["verb"], order["socket"], order["fields"], stamper, held)
            print("done", flush=True)


def _step(verb: str, parent: str, fields: dict[str, Any], stamper: Stamper, held: dict[str, bytes]) -> None:
    if verb in ("send", "hold", "lose"):
        subject = fields.pop("about", stamper.source)
        held[verb] = sender.line_of(fields | {"stamp": stamper.stamp(subject)})
    if verb in ("send", "again"):
        sender.deliver(parent, held["send"])
    if verb == "release":
        sender.deliver(parent, held["hold"])


if __name__ == "__main__":
    _be_child(*sys.argv[1:])
