"""Limits on the memory, connections and time that clients can use."""

from __future__ import annotations

from typing import NamedTuple

from podledger.core.protocol import MAX_FRAME_BYTES


class Limits(NamedTuple):
    """The limits of a receiver, and the users that it accepts.

    Lines: `max_frame_bytes` is the longest one, without its newline. Of `max_queued` lines, which take up to
    `max_queued_bytes` in memory, each waits for its commit; then reading stops. `max_batch` are committed together.
    `max_long_lines` connections at a time may be in the middle of a long line.

    Connections: `max_connections` may be open. One that sends no whole line for `idle_timeout_s` seconds is closed.
    When the receiver stops, it goes on reading from clients for `drain_grace_s` seconds.

    Answers: `max_unsent_bytes` wait for their clients, each for `answer_timeout_s` seconds. A registry of more than
    `max_listed_bytes` is not listed.

    Users: the receiver accepts its own user and those in `allowed_uids`. You have to let them reach the socket's file.
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
