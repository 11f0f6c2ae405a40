"""What is recorded: the eight kinds of event, how each is known, the entry of the log and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple, NotRequired

from pydantic import Field, Strict, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json
from typing_extensions import TypedDict

from podledger.core import strict_json
from podledger.core.errors import ProtocolError
from podledger.core.protocol import (
    Errored,
    Event,
    PodEvent,
    PodName,
    Scope,
    ScopeSubDelegated,
    ShutDown,
    Stamp,
    Text,
    TurnEnded,
    moment,
    read_event,
    timestamp,
)
from podledger.core.text import escape

Kind = Literal[
    "turn_ended",
    "errored",
    "shut_down",
    "scope_sub_delegated",
    "pod_spawned",
    "pod_exited",
    "pod_unreachable",
    "pod_reclaimed",
]
Evidence = Literal["reported", "observed", "inferred"]
"""How an event is known: a pod said so on the socket, the owner did or saw it, it was concluded from silence."""

Outcome = Literal["applied", "duplicate", "conflict", "late", "unknown", "noted", "confirmed", "revived", "ignored"]
"""What the rules made of an event."""

Int = Annotated[int, Strict(), Field(ge=-(1 << 63), le=(1 << 63) - 1)]


class PodSpawned(PodEvent):
    """The owner spawned a direct child, which listens on `socket_path`, and lent it `scope`."""

    kind: Literal["pod_spawned"] = "pod_spawned"
    socket_path: Text
    scope: Scope = ()
    callback_address: Text = ""
    pid: Int | None = None


class PodExited(PodEvent):
    """The owner reaped a child: it ended with `exit_code`, or by the signal `signal`."""

    kind: Literal["pod_exited"] = "pod_exited"
    exit_code: Int | None = None
    signal: Int | None = None

    @model_validator(mode="after")
    def _ended_one_way(self) -> PodExited:
        if (self.exit_code is None) == (self.signal is None):
            raise ValueError("either exit_code or signal must be given")
        return self


class PodUnreachable(PodEvent):
    """A probe of the pod's socket failed, for the `attempt`th time in a row."""

    kind: Literal["pod_unreachable"] = "pod_unreachable"
    reason: Text
    attempt: Int = 1


class PodReclaimed(PodEvent):
    """The pod is taken for dead, and what was lent to it is taken back."""

    kind: Literal["pod_reclaimed"] = "pod_reclaimed"
    reason: Text


LedgerEvent = (
    TurnEnded | Errored | ShutDown | ScopeSubDelegated | PodSpawned | PodExited | PodUnreachable | PodReclaimed
)
EVIDENCE: Final[dict[str, Evidence]] = {
    "turn_ended": "reported",
    "errored": "reported",
    "shut_down": "reported",
    "scope_sub_delegated": "reported",
    "pod_spawned": "observed",
    "pod_exited": "observed",
    "pod_unreachable": "inferred",
    "pod_reclaimed": "inferred",
}
"""The evidence that an event of each kind has, unless the one who records it knows better."""

KINDS: Final = tuple(EVIDENCE)
DELEGATIONS: Final = frozenset({"pod_spawned", "scope_sub_delegated"})
"""The kinds that lend a scope to a pod."""

_EVENT: TypeAdapter[LedgerEvent] = TypeAdapter(Annotated[LedgerEvent, Field(discriminator="kind")])
_SCOPE = TypeAdapter(Scope)


def parse_event(payload: str) -> LedgerEvent:
    """The event that a payload states.

    Raises:
        ProtocolError: it states none.
    """
    return event_from(strict_json.loads(payload))


def event_from(fields: Any) -> LedgerEvent:
    """The event that a decoded JSON object states.

    Raises:
        ProtocolError: it states none.
    """
    return read_event(_EVENT, fields)


class Sender(NamedTuple):
    """The process at the other end of a socket, as the kernel attests it."""

    pid: int
    uid: int
    gid: int


class Delegation(NamedTuple):
    """What a delegation states of the pod. `scope` is canonical JSON; `callback_address` is None if not stated."""

    socket_path: str
    scope: str
    parent_pod: str
    callback_address: str | None


class Draft(NamedTuple):
    """An event on its way into the log: all that is known before it has its place there."""

    kind: Kind
    evidence: Evidence
    pod_name: str
    payload: str
    sender: Sender | None
    stamp: Stamp | None
    content: Delegation | None


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


NO_DIGEST: Final = "0" * 64
"""What the first entry of a ledger has for a previous digest."""


def payload_digest(payload: str) -> str:
    """SHA-256 of the payload's UTF-8, in hexadecimal."""
    return hashlib.sha256(payload.encode()).hexdigest()


NO_PAYLOAD: Final = "{}"
"""The payload of an entry whose payload the database does not hold. No event is empty."""


def chain_digest(previous: str, fields: Sequence[Any], absent_payload_digest: str | None = None) -> str:
    """SHA-256 over the previous digest and an entry's fields but `digest`, each on a line, null as an empty line.

    The payload's own digest stands for the payload: `absent_payload_digest`, if the database does not hold the payload.
    `docs/ledger-format.md` states the form.
    """
    ledger, seq, recorded_us, evidence, kind, pod_name, payload = fields[:7]
    known = fields[7:15]
    lines = _BLANK if known == _UNKNOWN else "\n".join(["" if field is None else str(field) for field in known])
    text = (
        f"{previous}\n{ledger}\n{seq}\n{recorded_us}\n{evidence}\n{kind}\n{pod_name}\n"
        f"{absent_payload_digest or payload_digest(payload)}\n{lines}\n{fields[15]}\n{fields[16]}"
    )
    return hashlib.sha256(text.encode()).hexdigest()


_UNKNOWN: Final = (None,) * 8
_BLANK: Final = "\n" * 7
"""The sender's and the stamp's fields where neither is known, and the lines that stand for them."""


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


def delegation_of(event: Event, owner: str) -> Delegation | None:
    """What a delegation states; None for an event of another kind."""
    match event:
        case PodSpawned():
            return Delegation(event.socket_path, scope_text(event.scope), owner, event.callback_address)
        case ScopeSubDelegated():
            return Delegation(event.sub_socket, scope_text(event.scope), event.parent_pod, None)
        case _:
            return None


def scope_text(scope: Scope) -> str:
    """A scope as canonical JSON."""
    return _SCOPE.dump_json(scope).decode()


def scope_from(text: str) -> Scope:
    """The scope that `scope_text` wrote.

    Raises:
        ProtocolError: the text was damaged since.
    """
    try:
        return _SCOPE.validate_json(text)
    except ValidationError as error:
        raise ProtocolError("a scope that was stored is damaged", hint="run `podledger verify`") from error


class _Rule(TypedDict):
    target: Text
    permission: Literal["read", "write"]
    recursive: NotRequired[Annotated[bool, Strict()]]


class _Spawned(TypedDict):
    socket_path: str
    scope: NotRequired[list[_Rule]]
    callback_address: NotRequired[str]


class _Delegated(TypedDict):
    sub_socket: str
    scope: list[_Rule]
    parent_pod: PodName


_SPAWNED, _DELEGATED = TypeAdapter(_Spawned), TypeAdapter(_Delegated)


def delegation_from(kind: str, payload: str, owner: str) -> Delegation:
    """What the payload of a delegation states, read without the rest of it.

    It validates into dictionaries, not models, because a rebuild does this for each delegation of the log.

    Raises:
        ProtocolError: it is no delegation.
    """
    try:
        if kind == "pod_spawned":
            spawned = _SPAWNED.validate_json(payload)
            scope, callback = spawned.get("scope", []), spawned.get("callback_address", "")
            return Delegation(spawned["socket_path"], _canonical(scope), owner, callback)
        told = _DELEGATED.validate_json(payload)
        return Delegation(told["sub_socket"], _canonical(told["scope"]), told["parent_pod"], None)
    except ValidationError as error:
        raise ProtocolError(f"the payload of a {kind} states no delegation") from error


def _canonical(scope: list[_Rule]) -> str:
    """What `scope_text` makes of the same scope."""
    for rule in scope:
        rule.setdefault("recursive", True)
    return to_json(scope).decode()


SHOWN_MESSAGE: Final = 4096
"""How many characters of a message or a reason `render` shows."""


def render(event: Event) -> str:
    """One line for a person or an agent. What a pod wrote is escaped, and a long message cut, so that it stays one."""
    name = escape(event.about)
    match event:
        case TurnEnded():
            return f"Pod `{name}` finished a turn."
        case Errored():
            return f"Pod `{name}` reported an error: {escape(event.message, SHOWN_MESSAGE)}"
        case ShutDown():
            return f"Pod `{name}` has stopped."
        case ScopeSubDelegated():
            return f"Pod `{escape(event.parent_pod)}` spawned `{name}` and delegated scope to it."
        case PodSpawned():
            return f"Pod `{name}` was spawned, with its socket at {escape(event.socket_path, SHOWN_MESSAGE)}."
        case PodExited():
            how = f"with code {event.exit_code}" if event.signal is None else f"by signal {event.signal}"
            return f"Pod `{name}` exited {how}."
        case PodUnreachable():
            return f"Pod `{name}` did not answer (attempt {event.attempt}): {escape(event.reason, SHOWN_MESSAGE)}"
        case PodReclaimed():
            return f"Pod `{name}` was reclaimed: {escape(event.reason, SHOWN_MESSAGE)}"
        case _:
            raise TypeError(f"no line for {type(event).__name__}")
