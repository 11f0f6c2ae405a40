"""How much a receiver takes at most, of everything that a stranger could make grow."""

from __future__ import annotations

from typing import NamedTuple

from podledger.core.protocol import MAX_FRAME_BYTES


class Limits(NamedTuple):
    """What a receiver takes at most, and whom it lets in.

    `max_frame_bytes` is the longest line without its newline. `max_connections` are open at once, and one that sends
    no whole line for `idle_timeout_s` seconds is closed. `max_queued` lines, of `max_queued_bytes` in memory, wait
    for their commit before reading stops; `max_batch` are committed together. `max_long_lines` connections may be in
    the middle of a long line. `max_unsent_bytes` of answers wait for their readers, each for `answer_timeout_s`
    seconds; a registry of more than `max_listed_bytes` is not listed. When stopping, what clients send is taken for
    `drain_grace_s` seconds more. Besides the receiver's own user, those in `allowed_uids` are let in; what lets them
    reach the socket's file is for its owner to arrange.
    """

    max_frame_bytes: int = MAX_FRAME_BYTES
    max_connections: int = 1024
    idle_timeout_s: float = 60.0
    max_queued: int = 10_000
    max_queued_bytes: int = 16 << 20
    max_batch: int = 1_000
    max_long_lines: int = 32
    max_unsent_bytes: int = 16 << 20
    answer_timeout_s: float = 5.0
    max_listed_bytes: int = 4 << 20
    drain_grace_s: float = 1.0
    allowed_uids: frozenset[int] = frozenset()

    @property
    def queued_share(self) -> int:
        """How many of the waiting lines may be one process's."""
        return max(1, self.max_queued // 4)

    @property
    def long_share(self) -> int:
        """How many of the long lines may be one process's."""
        return max(1, self.max_long_lines // 4)
