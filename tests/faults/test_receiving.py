"""The receiver on a full disk: it stays up, reports the trouble, stops reading, and continues when there is room."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from podledger import Ledger, Receiver, send_pod_event
from podledger.core.events import Errored
from tests.faults.operations import NAME, check_open
from tests.given import OWNER
from tests.waiting import wait_until

TOO_LONG_S = 20.0


async def send(path: Path, number: int) -> None:
    await send_pod_event(path, Errored(pod_name="child", message=f"{number} " + "x" * 50_000), timeout_s=TOO_LONG_S)


async def test_receiver_survives_a_full_disk_without_loss(small_disk: Path, tmp_path: Path) -> None:
    """The receiver keeps the reports that it has read. Later senders wait until it accepts them."""
    socket = tmp_path / "root.sock"
    async with Ledger.open(small_disk / NAME, OWNER) as ledger, Receiver(ledger, socket) as receiver:
        sending: list[asyncio.Task[None]] = []
        while receiver.healthy:
            sending.append(asyncio.create_task(send(socket, len(sending))))
            await asyncio.wait(sending[-1:], timeout=1.0)
        assert "the disk is full" in receiver.trouble
        before = (await ledger.head()).head_seq
        late = asyncio.create_task(send(socket, len(sending)))
        await asyncio.wait([late], timeout=0.3)
        assert not late.done(), "it stops reading, so that senders wait"

        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        await wait_until(lambda: receiver.healthy)
        await asyncio.gather(late, *sending)
        expected = len(sending) + 1

        async def committed() -> bool:
            return (await ledger.head()).head_seq >= expected

        await wait_until(committed)
        kept = {entry.event.message.split()[0] async for entry in ledger.entries()}  # type: ignore[union-attr]
        assert kept == {str(number) for number in range(expected)}
        assert before < expected
        await check_open(ledger, [])
