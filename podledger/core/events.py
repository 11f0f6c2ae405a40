"""The models of the eight kinds of event, and how to read them from JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import to_json

from podledger.core import strict_json
from podledger.core.errors import ProtocolError
from podledger.core.fields import Int, PathText, PodName, Scope, Stamp, Text, WireModel
from podledger.core.relays import Relay
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
"""How the owner knows of an event: a pod reported it, the owner did or observed it, or inferred it from silence."""


class Event(WireModel):
    """The base of all events: a kind, the stamp of a podledger sender, and the origin of a relayed event."""

    kind: str
    stamp: Stamp | None = None
    relay: Relay | None = None

    @property
    def about(self) -> str:
        """The name of the pod that the event is about."""
        raise NotImplementedError

    def payload(self) -> str:
        """Return the event as one line of compact JSON, without fields that are None."""
        return to_json(self, exclude_none=True).decode()


class PodEvent(Event):
    """The base of the events that name their pod in `pod_name`."""

    pod_name: PodName

    @property
    def about(self) -> str:
        """The name of the pod that the event is about."""
        return self.pod_name


class TurnEnded(PodEvent):
    """A pod finished a turn."""

    kind: Literal["turn_ended"] = "turn_ended"


class Errored(PodEvent):
    """A pod reported an error; `message` is untrusted text from a tool or a model."""

    kind: Literal["errored"] = "errored"
    message: Text


class ShutDown(PodEvent):
    """A pod has stopped."""

    kind: Literal["shut_down"] = "shut_down"


class ScopeSubDelegated(Event):
    """`parent_pod` spawned `sub_pod`, which listens on `sub_socket`, and delegated `scope` to it."""

    kind: Literal["scope_sub_delegated"] = "scope_sub_delegated"
    parent_pod: PodName
    sub_pod: PodName
    sub_socket: PathText
    scope: Scope

    @property
    def about(self) -> str:
        """The name of the pod that the event is about: `sub_pod`."""
        return self.sub_pod


class PodSpawned(PodEvent):
    """The owner spawned a direct child, which listens on `socket_path`, and delegated `scope` to it.

    `socket_path` is empty if the child only reports. `pid` is its process. A pid is used again, so podledger adds
    `start`, the start of that process, when the owner appends the event.
    """

    kind: Literal["pod_spawned"] = "pod_spawned"
    socket_path: PathText
    scope: Scope = ()
    callback_address: PathText = ""
    pid: Int | None = None
    start: Text | None = None


class PodExited(PodEvent):
    """The owner reaped a child, which exited with `exit_code` or was killed by `signal`."""

    kind: Literal["pod_exited"] = "pod_exited"
    exit_code: Int | None = None
    signal: Int | None = None

    @model_validator(mode="after")
    def _ended_one_way(self) -> PodExited:
        if (self.exit_code is None) == (self.signal is None):
            raise ValueError("give either exit_code or signal")
        return self


class PodUnreachable(PodEvent):
    """A probe of the pod's socket failed; `attempt` counts consecutive failures."""

    kind: Literal["pod_unreachable"] = "pod_unreachable"
    reason: Text
    attempt: Int = 1


class PodReclaimed(PodEvent):
    """The owner considers the pod dead and takes its grants back."""

    kind: Literal["pod_reclaimed"] = "pod_reclaimed"
    reason: Text


WireEvent = TurnEnded | Errored | ShutDown | ScopeSubDelegated
"""The events that a pod may report on a socket."""

LedgerEvent = (
    TurnEnded | Errored | ShutDown | ScopeSubDelegated | PodSpawned | PodExited | PodUnreachable | PodReclaimed
)
"""The events that a ledger records."""

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
"""The kinds of event, and the default evidence of each."""

KINDS: Final = tuple(EVIDENCE)
DELEGATIONS: Final = frozenset({"pod_spawned", "scope_sub_delegated"})
"""The kinds that delegate a scope to a pod."""

E = TypeVar("E", bound=Event)
WIRE_EVENT: Final[TypeAdapter[WireEvent]] = TypeAdapter(Annotated[WireEvent, Field(discriminator="kind")])
_LEDGER_EVENT: Final[TypeAdapter[LedgerEvent]] = TypeAdapter(Annotated[LedgerEvent, Field(discriminator="kind")])


def parse_event(payload: str) -> LedgerEvent:
    """Return the event in a stored payload.

    Raises:
        ProtocolError: the payload is not a valid event.
    """
    return event_from(strict_json.loads(payload))


def event_from(fields: Any) -> LedgerEvent:
    """Return the event in a decoded JSON object.

    Raises:
        ProtocolError: the object is not a valid event.
    """
    return read_event(_LEDGER_EVENT, fields)


def read_event(adapter: TypeAdapter[E], fields: Any) -> E:
    """Return the event in a decoded JSON object; a malformed stamp or relay is dropped, and the event stays valid.

    Raises:
        ProtocolError: the object is not a valid event. The message names the field and the reason.
    """
    try:
        return adapter.validate_python(fields)
    except ValidationError as error:
        malformed = {part: None for problem in error.errors() for part in problem["loc"][:2] if part in _OPTIONAL}
        if not malformed or not isinstance(fields, dict):
            raise ProtocolError(_first_problem(error)) from error
    return read_event(adapter, fields | malformed)


_OPTIONAL: Final = frozenset({"stamp", "relay"})
"""The fields that only podledger senders add. A malformed one is dropped, and the event stays valid."""


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    return escape(f"{where}: {reason}" if where else reason, 300)
