"""Entries of the log, and drafts on their way there."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from podledger.core import strict_json
from podledger.core.delegations import Delegation, delegation_of
from podledger.core.events import DELEGATIONS, EVIDENCE, Evidence, Kind, LedgerEvent, parse_event
from podledger.core.fields import Stamp
from podledger.core.times import moment, timestamp

Outcome = Literal["applied", "duplicate", "conflict", "late", "unknown", "noted", "confirmed", "revived", "ignored"]
"""What the rules made of an event."""


class Sender(NamedTuple):
    """The process at the other end of a socket, as the kernel attests it."""

    pid: int
    uid: int
    gid: int


class Draft(NamedTuple):
    """An event on its way into the log: all that is known before it has its place there."""

    kind: Kind
    evidence: Evidence
    pod_name: str
    payload: str
    sender: Sender | None
    stamp: Stamp | None
    content: Delegation | None


def draft(
    event: LedgerEvent,
    owner: str,
    *,
    payload: str | None = None,
    sender: Sender | None = None,
    evidence: Evidence | None = None,
) -> Draft:
    """`event` on its way into the log of `owner`; `payload` is its text where it came from outside."""
    kind: Kind = event.kind
    return Draft(
        kind,
        evidence or EVIDENCE[kind],
        event.about,
        event.payload() if payload is None else payload,
        sender,
        event.stamp,
        delegation_of(event, owner) if kind in DELEGATIONS else None,
    )


class Entry(NamedTuple):
    """One entry of a ledger's log, as it is stored; `recorded_us` is in microseconds since 1970 (UTC).

    From `stamp_id` to `subject` it holds the stamp's fields, null for an event without one; from `pid` to `gid` the
    sender, null for a local fact. `rules` is the version of the rules that decided `outcome`.
    """

    ledger: str
    seq: int
    recorded_us: int
    evidence: Evidence
    kind: Kind
    pod_name: str
    payload: str
    pid: int | None
    uid: int | None
    gid: int | None
    stamp_id: str | None
    source: str | None
    sequence: int | None
    sent_us: int | None
    subject: str | None
    outcome: Outcome
    rules: int
    digest: str

    @property
    def recorded_at(self) -> datetime:
        """When the ledger recorded it, in UTC."""
        return moment(self.recorded_us)

    @property
    def event(self) -> LedgerEvent:
        """The event that the payload states."""
        return parse_event(self.payload)

    @property
    def sender(self) -> Sender | None:
        """Who sent it, as the kernel attests; None for a local fact."""
        return None if self.pid is None else Sender(self.pid, self.uid or 0, self.gid or 0)

    def as_json(self) -> dict[str, Any]:
        """The entry as `events --json` prints it; `payload` is the event's exact text, which the digest is over."""
        return {
            "ledger": self.ledger,
            "seq": self.seq,
            "recorded_at": timestamp(self.recorded_us),
            "evidence": self.evidence,
            "kind": self.kind,
            "pod_name": self.pod_name,
            "outcome": self.outcome,
            "rules": self.rules,
            "event": strict_json.loads(self.payload),
            "payload": self.payload,
            "sender": self.sender and self.sender._asdict(),
            "digest": self.digest,
        }
