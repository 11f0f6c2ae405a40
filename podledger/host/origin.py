"""The origin of a sender: the process that connected, and its ancestors then, compared with the processes of pods."""

from __future__ import annotations

from typing import Final

from podledger.core.entries import Relation, Sender
from podledger.host.processes import AncestryReader, liveness, user_of

MAX_KEPT: Final = 64
"""How many relations of one sender are kept."""


class SenderOrigin:
    """The ancestry of a sending process, read once, when it connects.

    A short-lived sender waits for our greeting and may be gone when its report is committed, so it must be read before
    the greeting is sent.
    """

    __slots__ = ("_ancestry", "_kept", "_sender")

    def __init__(self, sender: Sender, ancestries: AncestryReader) -> None:
        self._sender = sender
        self._ancestry = ancestries.read(sender.pid)
        self._kept: dict[tuple[int, str], Relation | None] = {}

    def relation_to(self, pid: int, start: str) -> Relation | None:
        """Return the sender's relation to the pod whose process has this pid and start, None if it is not known."""
        pod = (pid, start)
        if pod not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[pod] = self._judge(pod)
        return self._kept[pod]

    def _judge(self, pod: tuple[int, str]) -> Relation | None:
        line, is_complete = self._ancestry
        if pod in line[:1]:
            return "pod"
        if liveness(*pod) != "running":  # its children have another parent by now, so nothing can be said of others
            return "descendant" if pod in line else None
        if user_of(pod[0]) not in (None, self._sender.uid):
            return "other"
        if pod in line:
            return "descendant"
        return "other" if is_complete else None
