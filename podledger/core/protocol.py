"""What travels on a pod's socket, the four reports, their stamp, the methods, the server's answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from podledger.core import strict_json
from podledger.core.errors import ProtocolError
from podledger.core.names import check_name
from podledger.core.stamps import Stamper, new_incarnation
from podledger.core.text import escape

MAX_FRAME_BYTES: Final = 1 << 20
"""The longest line taken, without its newline."""

MAX_VALUES: Final = 10_000
"""How many values a line may list: reading takes its time by them, and not by its bytes."""

METHODS: Final = frozenset(
    "run notify pod_event resume cancel pause compact list_rewind_targets rewind_to shutdown list_completions "
    "list_pods restore_pod register_peer".split()
)
"""Every method that a pod's socket knows; podledger serves `pod_event` and `list_pods`."""

Text = Annotated[str, Strict()]
PodName = Annotated[str, Strict(), AfterValidator(check_name)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def _check_time(text: str) -> str:
    if not _RFC3339.fullmatch(text):
        raise ValueError("not a time as in RFC 3339")
    microseconds(datetime.fromisoformat(text.upper()))
    return text


def microseconds(moment: datetime) -> int:
    """Whole microseconds from the start of 1970 (UTC) to the aware `moment`."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """The time in UTC that is `microseconds` after the start of 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def timestamp(microseconds: int) -> str:
    """That time as RFC 3339, always in UTC and with six decimals, so that its text sorts as time does."""
    return moment(microseconds).isoformat(timespec="microseconds").replace("+00:00", "Z")


_HEX4 = "[0-9a-fA-F]{4}"
Uuid = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=f"^{_HEX4}{_HEX4}-{_HEX4}-{_HEX4}-{_HEX4}-{_HEX4 * 3}$", to_lower=True),
]
Incarnation = Annotated[
    str,
    Strict(),
    StringConstraints(
        pattern=f"^{_HEX4}{_HEX4}-{_HEX4}-7[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}-{_HEX4 * 3}$",
        to_lower=True,
    ),
]
"""One life of a pod: a UUIDv7 in lower case, so that of two the later is the greater text."""


class WireModel(BaseModel):
    """What every model of the wire shares: frozen, exact types, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ScopeRule(WireModel):
    """One rule of a scope: a path that a pod may read or write.

    A recursive rule covers `target` and everything below it, another `target` and its direct children.
    """

    target: Text
    permission: Literal["read", "write"]
    recursive: Annotated[bool, Strict()] = True


Scope = tuple[ScopeRule, ...]


class Stamp(WireModel):
    """What a podledger sender adds to an event so that order, loss and repetition can be told.

    `id` names the item (a redelivery keeps it), `source` the sender's incarnation, `sequence` counts from 1 by
    source, `time` is the sender's clock, `subject` the incarnation of the pod that the event is about; a sender that
    does not know it leaves it out, and the rules take the event as unstamped.
    """

    id: Uuid
    source: Incarnation
    sequence: Annotated[int, Strict(), Field(ge=1, le=(1 << 63) - 1)]
    time: Annotated[str, Strict(), AfterValidator(_check_time)]
    subject: Incarnation | None = None

    @classmethod
    def naming(cls, subject: str) -> Self:
        """A stamp for a fact of the owner's own: all it does is name the incarnation that the fact is about."""
        return cls.model_validate(Stamper(new_incarnation()).stamp(subject))

    @property
    def sent_us(self) -> int:
        """`time` in microseconds since 1970."""
        return microseconds(datetime.fromisoformat(self.time.upper()))


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
        return self.__pydantic_serializer__.to_json(self, exclude_none=True).decode()


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


WireEvent = TurnEnded | Errored | ShutDown | ScopeSubDelegated
E = TypeVar("E", bound=Event)
_WIRE_EVENT: TypeAdapter[WireEvent] = TypeAdapter(Annotated[WireEvent, Field(discriminator="kind")])
_STAMP = TypeAdapter(Stamp)


class Report(NamedTuple):
    """A pod event from the wire, and its payload exactly as it came."""

    event: WireEvent
    payload: str


class Request(NamedTuple):
    """Another method of the socket's protocol."""

    method: str


def parse_line(line: bytes) -> Report | Request:
    """Read one frame that a client sent.

    Raises:
        ProtocolError: it is none of the protocol's methods, or a malformed one.
    """
    if line.count(b",") >= MAX_VALUES and _commas(line) >= MAX_VALUES:
        raise ProtocolError(f"more than {MAX_VALUES:,} values in one line")
    text = decode(line)
    return _usual_report(text) or _message(text)


def _commas(line: bytes) -> int:
    """How many commas stand outside of its strings, in time that grows with its length alone."""
    parts = line.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
    return sum(part.count(b",") for part in parts[::2])


def _usual_report(text: str) -> Report | None:
    """The report that a line is, if its members stand as a compact encoder puts them: most do, and are read quicker."""
    if not text.startswith(_USUAL):
        return None
    params = strict_json.last_member(text, len(_USUAL) - 1)
    return params and Report(read_event(_WIRE_EVENT, params[0]), params[1])


_USUAL: Final = '{"method":"pod_event","params":{'


def _message(text: str) -> Report | Request:
    found = strict_json.members(text)
    method = found["method"].value if "method" in found else None
    if not isinstance(method, str) or method not in METHODS:
        raise ProtocolError("no method of the protocol is named")
    if method != "pod_event":
        return Request(method)
    if "params" not in found:
        raise ProtocolError("pod_event: params are missing")
    params = found["params"]
    return Report(read_event(_WIRE_EVENT, params.value), params.text)


def decode(line: bytes) -> str:
    """The line as text.

    Raises:
        ProtocolError: it is no UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"not UTF-8 at byte {error.start}") from error


def read_event(adapter: TypeAdapter[E], fields: Any) -> E:
    """The event that a decoded JSON object states; a malformed stamp costs nothing but itself.

    Raises:
        ProtocolError: it states none, with the field and the reason.
    """
    if isinstance(fields, dict) and "stamp" in fields:
        fields = fields | {"stamp": _read_stamp(fields["stamp"])}
    try:
        event: E = adapter.validator.validate_python(fields)
    except ValidationError as error:
        raise ProtocolError(_first_problem(error)) from error
    return event


def _read_stamp(fields: Any) -> Stamp | None:
    try:
        return _STAMP.validate_python(fields)
    except ValidationError:
        return None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    return escape(f"{where}: {reason}" if where else reason, 300)


def frame(message: dict[str, Any]) -> bytes:
    """`message` as one frame."""
    return strict_json.dumps(message).encode() + b"\n"


def snapshot_frame(pod_name: str) -> bytes:
    """What a receiver sends first: an empty history, and a greeting with every field that clients require."""
    greeting = {
        "pod_name": pod_name,
        "cwd": "/",
        "provider": "podledger",
        "model": "",
        "scope_summary": "",
        "tools": [],
    }
    return frame({"event": "snapshot", "data": {"entries": [], "greeting": greeting, "status": "idle"}})


def error_frame(message: str) -> bytes:
    """The answer to a line that is not taken."""
    return frame({"event": "error", "data": {"code": "invalid_request", "message": message}})


def pods_listed_frame(pods: list[dict[str, Any]]) -> bytes:
    """The answer to `list_pods`."""
    return frame({"event": "pods_listed", "data": {"pods": pods}})
