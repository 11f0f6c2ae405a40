"""Waiting for what another process does, no longer than it may take."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 20.0


def until(condition: Callable[[], object]) -> None:
    """Return as soon as `condition` holds.

    Raises:
        TimeoutError: it did not in time.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{condition} did not come to hold in {PATIENCE_S} s")
        time.sleep(0.01)
