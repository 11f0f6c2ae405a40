"""Progress reports of long work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

EVERY: Final = 10_000
"""How many items pass between two reports."""

Progress = Callable[[int, int], None]
"""Called with how many items are done, and with the total."""

T = TypeVar("T")


def reported(items: Iterable[T], progress: Progress | None, total: int) -> Iterator[T]:
    """Yield the items; report their number every 10,000 of them, and the total at the end."""
    if progress is None:
        yield from items
        return
    for number, item in enumerate(items, 1):
        if number % EVERY == 0:
            progress(number, total)
        yield item
    progress(total, total)
