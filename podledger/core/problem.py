"""A problem that a check finds."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """A problem: the name of the check that found it, the seq of the entry concerned (or None), and the detail."""

    check: str
    seq: int | None
    detail: str
