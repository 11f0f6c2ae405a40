"""The protocol of a pod's socket: the lines that clients send, and the server's responses.

`docs/protocol.md` describes it and its origin.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from podledger.core import strict_json
from podledger.core.entries import Entry
from podledger.core.errors import ProtocolError
from podledger.core.events import WIRE_EVENT, WireEvent, read_event
from podledger.core.fields import Stamp

MAX_FRAME_BYTES: Final = 1 << 20
"""The longest line that a receiver accepts, without its newline."""

MAX_VALUES: Final = 10_000
"""The most values in one line: the time to read a line depends on them more than on its bytes."""

METHODS: Final = frozenset(
    "run notify pod_event resume cancel pause compact list_rewind_targets rewind_to shutdown list_completions "
    "list_pods restore_pod register_peer".split()
)
"""The methods of the protocol; podledger serves `pod_event` and `list_pods`."""


OFFER: Final = {"version": 1, "accepts": ["ack", "relay"]}
"""The offer of a greeting to podledger's senders: the receiver answers events, and takes the ends that owners relay."""


class Report(NamedTuple):
    """A `pod_event` line: the event, and its payload exactly as it arrived."""

    event: WireEvent
    payload: str


class Request(NamedTuple):
    """A line with any other method of the protocol."""

    method: str


def parse_line(line: bytes) -> Report | Request:
    """Read one line from a client, without its newline.

    Raises:
        ProtocolError: the line is not valid JSON, names no method of the protocol, or its event is not valid.
    """
    if len(line) > MAX_VALUES and _has_too_many_values(line):
        raise ProtocolError(f"more than {MAX_VALUES:,} values in one line")
    text = decode(line)
    if text.startswith(_USUAL_START):  # the usual form, which this reads faster than `_message` does
        params = strict_json.last_member(text, len(_USUAL_START) - 1)
        if params:
            return Report(read_event(WIRE_EVENT, params[0]), params[1])
    return _message(text)


def asking_id(line: bytes) -> str | None:
    """Return the id of the stamp in a line that was refused, if the stamp can be read and asks for an answer."""
    if b'"ack"' not in line or _has_too_many_values(line):
        return None
    try:
        stamp = Stamp.model_validate(strict_json.loads(decode(line))["params"]["stamp"])
    except (ProtocolError, ValidationError, TypeError, LookupError):
        return None
    return stamp.id if stamp.ack else None


_USUAL_START: Final = '{"method":"pod_event","params":{'


def _has_too_many_values(line: bytes) -> bool:
    """Count the commas outside of strings, in time that grows with the line's length alone."""
    if line.count(b",") < MAX_VALUES:
        return False
    parts = line.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
    return sum(part.count(b",") for part in parts[::2]) >= MAX_VALUES


def _message(text: str) -> Report | Request:
    found = strict_json.members(text)
    method = found["method"].value if "method" in found else None
    if not isinstance(method, str) or method not in METHODS:
        raise ProtocolError("the line names no method of the protocol")
    if method != "pod_event":
        return Request(method)
    if "params" not in found:
        raise ProtocolError("pod_event: params is missing")
    params = found["params"]
    return Report(read_event(WIRE_EVENT, params.value), params.text)


def decode(line: bytes) -> str:
    """Return the line as text.

    Raises:
        ProtocolError: the line is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"not UTF-8 at byte {error.start}") from error


def frame(message: dict[str, Any]) -> bytes:
    """Return `message` as one line of JSON with its newline."""
    return strict_json.dumps(message).encode() + b"\n"


def snapshot_frame(pod_name: str) -> bytes:
    """Return the first frame of a receiver: an empty history and a greeting with every field that clients require."""
    greeting = {
        "pod_name": pod_name,
        "cwd": "/",
        "provider": "podledger",
        "model": "",
        "scope_summary": "",
        "tools": [],
        "podledger": OFFER,
    }
    return frame({"event": "snapshot", "data": {"entries": [], "greeting": greeting, "status": "idle"}})


def error_frame(message: str, stamp_id: str = "") -> bytes:
    """Return the response to a line that was rejected; `stamp_id` is that of an event that asked for an answer."""
    data = {"code": "invalid_request", "message": message}
    return frame({"event": "error", "data": data | ({"id": stamp_id} if stamp_id else {})})


def recorded_frame(entry: Entry) -> bytes:
    """Return the response to an event that asked for an answer, once it is committed."""
    stamp = f'"id":"{entry.stamp_id}","source":"{entry.source}","sequence":{entry.sequence}'
    data = f'{{{stamp},"seq":{entry.seq},"outcome":"{entry.outcome}"}}'
    return f'{{"event":"pod_event_recorded","data":{data}}}\n'.encode()


def pods_listed_frame(pods: list[dict[str, Any]]) -> bytes:
    """Return the response to `list_pods`."""
    return frame({"event": "pods_listed", "data": {"pods": pods}})
