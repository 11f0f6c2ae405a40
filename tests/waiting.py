"""Wait for a condition, at most for some seconds: `wait_until` in a coroutine, `block_until` elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable

WITHIN_S = 20.0
POLL_S = 0.005


async def wait_until(condition: Callable[[], object | Awaitable[object]], within_s: float = WITHIN_S) -> None:
    """Return as soon as `condition`, which may be a coroutine function, holds.

    Raises:
        TimeoutError: it did not hold in time.
    """
    async with asyncio.timeout(within_s):
        while not await _value(condition()):
            await asyncio.sleep(POLL_S)


async def _value(result: object | Awaitable[object]) -> object:
    return await result if isawaitable(result) else result


def block_until(condition: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Return as soon as `condition` holds, without an event loop.

    Raises:
        TimeoutError: it did not hold in time.
    """
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{condition} did not hold within {within_s} s")
        time.sleep(POLL_S)
