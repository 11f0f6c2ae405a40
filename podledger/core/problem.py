"""A problem that a check finds."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """What a check found wrong: the check's name, the seq of the entry that it concerns (or None), and the detail."""

    check: str
    seq: int | None
    detail: str
