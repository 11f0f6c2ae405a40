"""Entries of the log, and drafts: events that have no place in the log yet."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from podledger.core import strict_json
from podledger.core.delegations import Delegation, delegation_of, speaker_of
from podledger.core.events import DELEGATIONS, EVIDENCE, Evidence, Kind, LedgerEvent, parse_event
from podledger.core.fields import Stamp
from podledger.core.relays import RelayedKind
from podledger.core.times import moment, timestamp

Outcome = Literal["applied", "duplicate", "conflict", "late", "unknown", "noted", "confirmed", "revived", "ignored"]
"""The outcome of an event under the rules; `docs/rules.md` explains each."""


Relation = Literal["pod", "descendant", "other"]
"""The relation of a sending process to the process of the pod that it speaks for."""


class Sender(NamedTuple):
    """The process that sent a line, as the kernel reports it.

    `pid` is None for a line out of a spool, of which only the owner is known. `relation` is the process's relation to
    that of the pod that it speaks for, as it was then; None if it is not known.
    """

    pid: int | None
    uid: int
    gid: int
    relation: Relation | None = None


class Origin(Protocol):
    """Knows where a sending process comes from."""

    def relation_to(self, pid: int, start: str) -> Relation | None:
        """Return the sender's relation to the pod whose process has this pid and start, None if it is not known."""


class Draft(NamedTuple):
    """An event before it is appended: everything that is known without its seq.

    `origin` is None unless a process sent the event to our socket.
    """

    kind: Kind
    evidence: Evidence
    pod_name: str
    payload: str
    sender: Sender | None
    stamp: Stamp | None
    delegation: Delegation | None
    speaker: str | None
    relayed_kind: RelayedKind | None
    origin: Origin | None

    @property
    def speaking_pod(self) -> str:
        """The name of the pod whose process should have sent the event."""
        return self.pod_name if self.delegation is None else self.delegation.parent_pod


def draft(
    event: LedgerEvent,
    owner: str,
    *,
    payload: str | None = None,
    sender: Sender | None = None,
    origin: Origin | None = None,
    evidence: Evidence | None = None,
) -> Draft:
    """Return `event` as a draft for the ledger of `owner`; `payload` is its original text if it came from outside."""
    kind: Kind = event.kind
    return Draft(
        kind,
        evidence or EVIDENCE[kind],
        event.about,
        event.payload() if payload is None else payload,
        sender,
        event.stamp,
        delegation_of(event, owner) if kind in DELEGATIONS else None,
        speaker_of(event),
        event.relay.kind if event.relay else None,
        origin,
    )


class Entry(NamedTuple):
    """One entry of a ledger's log, as stored.

    Times are in microseconds since 1970 (UTC). `pid`, `uid` and `gid` are the sender, None for a local fact; of an
    event out of a spool the `pid` is None too. `relation` is the sender's. `stamp_id` to `subject` are the stamp, None
    for an unstamped event. `speaker` is the incarnation that spoke, and `relayed_kind` the kind of the entry that an
    owner relayed; both are None if not known. `rules` is the version of the rules that decided `outcome`.
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
    relation: Relation | None
    stamp_id: str | None
    source: str | None
    sequence: int | None
    sent_us: int | None
    subject: str | None
    speaker: str | None
    relayed_kind: RelayedKind | None
    outcome: Outcome
    rules: int
    digest: str

    @property
    def recorded_at(self) -> datetime:
        """The time in UTC at which the ledger recorded the event."""
        return moment(self.recorded_us)

    @property
    def event(self) -> LedgerEvent:
        """The event in the payload."""
        return parse_event(self.payload)

    @property
    def sender(self) -> Sender | None:
        """The process that sent the event, or None for a local fact."""
        return None if self.uid is None else Sender(self.pid, self.uid, self.gid or 0, self.relation)

    def as_json(self) -> dict[str, Any]:
        """Return the entry as `events --json` prints it; `payload` is the exact text that the digest covers."""
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
