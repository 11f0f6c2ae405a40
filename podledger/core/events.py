"""The eight kinds of event, and how each is known."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from podledger.core import strict_json
from podledger.core.errors import ProtocolError
from podledger.core.fields import Int, PodName, Scope, Stamp, Text, WireModel
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


class Event(WireModel):
    """What every event is: a kind, the pod that it is about, and a stamp if its sender stamped it."""

    kind: str
    stamp: Stamp | None = None

    @property
    def about(self) -> str:
        """The name of the pod that the event is about."""
        raise NotImplementedError

    def payload(self) -> str:
        """The event as one line of compact JSON, without what is not set."""
        return self.model_dump_json(exclude_none=True)


class PodEvent(Event):
    """An event about the pod that it names."""

    pod_name: PodName

    @property
    def about(self) -> str:
        """The name of the pod that the event is about."""
        return self.pod_name


class TurnEnded(PodEvent):
    """A pod finished a turn."""

    kind: Literal["turn_ended"] = "turn_ended"


class Errored(PodEvent):
    """A pod met an error; `message` is whatever a tool or a model printed."""

    kind: Literal["errored"] = "errored"
    message: Text


class ShutDown(PodEvent):
    """A pod has stopped."""

    kind: Literal["shut_down"] = "shut_down"


class ScopeSubDelegated(Event):
    """`parent_pod` spawned `sub_pod`, which listens on `sub_socket`, and lent it `scope`."""

    kind: Literal["scope_sub_delegated"] = "scope_sub_delegated"
    parent_pod: PodName
    sub_pod: PodName
    sub_socket: Text
    scope: Scope

    @property
    def about(self) -> str:
        """The name of the pod that the event is about: the one that was spawned."""
        return self.sub_pod


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


WireEvent = TurnEnded | Errored | ShutDown | ScopeSubDelegated
E = TypeVar("E", bound=Event)
WIRE_EVENT: TypeAdapter[WireEvent] = TypeAdapter(Annotated[WireEvent, Field(discriminator="kind")])
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


def read_event(adapter: TypeAdapter[E], fields: Any) -> E:
    """Return the event that a decoded JSON object states; a malformed stamp costs only itself.

    Raises:
        ProtocolError: the object is no event. The message names the field and the reason.
    """
    try:
        return adapter.validate_python(fields)
    except ValidationError as error:
        if not isinstance(fields, dict) or fields.get("stamp") is None:
            raise ProtocolError(_first_problem(error)) from error
    return read_event(adapter, fields | {"stamp": None})


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    return escape(f"{where}: {reason}" if where else reason, 300)
