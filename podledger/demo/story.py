"""The story of the demo: a receiver, and a small tree of real processes that report to it.

Some of their reports are repeated, late or lost. Run as a module, this file is one of those processes: it carries out
the orders on its standard input, one a line.
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
from typing import TYPE_CHECKING, Any, Final, TypeVar

from podledger.client import sender
from podledger.core import strict_json
from podledger.core.stamps import INCARNATION_VARIABLE, Stamper, new_incarnation

if TYPE_CHECKING:  # the child processes start faster without it
    from podledger.ledger import Ledger

OWNER: Final = "root"
STEP_TIMEOUT_S: Final = 10.0
T = TypeVar("T")


class Child:
    """A process of the tree, which carries out orders."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.socket = str(folder / f"{name}.sock")
        self.incarnation = new_incarnation()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "podledger.demo.story", self.name, self.socket),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {INCARNATION_VARIABLE: self.incarnation},
        )
        await self._answer()

    async def do(self, verb: str, parent_socket: str, **fields: Any) -> None:
        """Order one step, and wait until the process has carried it out."""
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018 - started before
        order = {"verb": verb, "socket": parent_socket, "fields": fields}
        self._process.stdin.write(strict_json.dumps(order).encode() + b"\n")
        await self._answer()

    async def kill(self) -> None:
        """Kill the process, so that it cannot report its end."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def _answer(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 - started before
        async with asyncio.timeout(STEP_TIMEOUT_S):
            await self._process.stdout.readline()


def run(read: Callable[[Ledger], Awaitable[T]]) -> T:
    """Play the story in a temporary folder, and return the result of `read` for its open ledger."""
    with tempfile.TemporaryDirectory(prefix="podledger-") as folder:
        return asyncio.run(_play(Path(folder), read))


async def _play(folder: Path, read: Callable[[Ledger], Awaitable[T]]) -> T:
    from podledger.ledger import Ledger
    from podledger.server.receiver import Receiver

    socket_path = str(folder / "root.sock")
    children = {name: Child(name, folder) for name in ("planner", "coder", "tester", "scout")}
    async with Ledger.open(folder / "podledger.db", OWNER) as ledger, Receiver(ledger, socket_path):
        try:
            for child in children.values():
                await child.start()
            await _play_story(ledger, socket_path, children)
        finally:
            for child in children.values():
                await child.kill()
        return await read(ledger)


async def _play_story(ledger: Ledger, root: str, children: dict[str, Child]) -> None:
    planner, coder, tester, scout = children.values()
    await _spawn(ledger, planner, "write:/srv/app")
    await _spawn(ledger, coder, "write:/srv/app/src")
    await _spawn(ledger, tester, "read:/srv/app")

    async def report(child: Child, verb: str, **fields: Any) -> None:
        """Order a step that reports, and wait until the report is committed."""
        head = (await ledger.head()).head_seq
        await child.do(verb, root, **fields)
        await _until_head(ledger, head + 1)

    await report(planner, "send", kind="turn_ended", pod_name="planner")
    await report(scout, "send", kind="turn_ended", pod_name="scout")  # before scout was delegated
    scope = [{"target": "/srv/app/docs", "permission": "write", "recursive": True}]
    delegation = {"parent_pod": "planner", "sub_pod": "scout", "sub_socket": scout.socket, "scope": scope}
    await report(planner, "send", kind="scope_sub_delegated", about=scout.incarnation, **delegation)
    await report(planner, "again")  # the same report
    await report(coder, "send", kind="errored", pod_name="coder", message="tests failed\n\x1b[2J\x1b[31mall is well")
    await coder.do("lose", root, kind="turn_ended", pod_name="coder")  # numbered, but never sent
    await coder.do("hold", root, kind="turn_ended", pod_name="coder")  # numbered now, sent after the shutdown
    await report(coder, "send", kind="shut_down", pod_name="coder")
    await report(coder, "release")
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
    """Run two rounds of the reconciler, with no time to wait between them."""
    from podledger.services.reconciler import ReconcilePolicy, Reconciler

    reconciler = Reconciler(ledger, ReconcilePolicy(attempts=2, grace_s=0.0))
    await reconciler.round()
    await reconciler.round()


async def _until_head(ledger: Ledger, seq: int) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while (await ledger.head()).head_seq < seq:
            await asyncio.sleep(0.005)


def _run_child(name: str, socket_path: str) -> None:
    """Listen as a pod does, and carry out the orders on standard input."""
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
        subject = fields.pop("about", stamper.speaker)
        held[verb] = sender.line_of(fields | {"stamp": stamper.stamp(subject)})
    if verb in ("send", "again"):
        sender.deliver(parent, held["send"])
    if verb == "release":
        sender.deliver(parent, held["hold"])


if __name__ == "__main__":
    _run_child(*sys.argv[1:])
