"""What travels on a pod's socket: the lines of clients, and the server's answers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from podledger.core import strict_json
from podledger.core.errors import ProtocolError
from podledger.core.events import WIRE_EVENT, WireEvent, read_event

MAX_FRAME_BYTES: Final = 1 << 20
"""The longest line taken, without its newline."""

MAX_VALUES: Final = 10_000
"""How many values a line may list: reading takes its time by them, and not by its bytes."""

METHODS: Final = frozenset(
    "run notify pod_event resume cancel pause compact list_rewind_targets rewind_to shutdown list_completions "
    "list_pods restore_pod register_peer".split()
)
"""Every method that a pod's socket knows; podledger serves `pod_event` and `list_pods`."""


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
    if len(line) > MAX_VALUES and _has_too_many_values(line):
        raise ProtocolError(f"more than {MAX_VALUES:,} values in one line")
    text = decode(line)
    return _usual_report(text) or _message(text)


def _has_too_many_values(line: bytes) -> bool:
    """Count the commas outside of strings, in time that grows with the line's length alone."""
    if line.count(b",") < MAX_VALUES:
        return False
    parts = line.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
    return sum(part.count(b",") for part in parts[::2]) >= MAX_VALUES


def _usual_report(text: str) -> Report | None:
    """The report that a line is, if its members stand as a compact encoder puts them: most do, and are read quicker."""
    if not text.startswith(_USUAL):
        return None
    params = strict_json.last_member(text, len(_USUAL) - 1)
    return params and Report(read_event(WIRE_EVENT, params[0]), params[1])


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
    return Report(read_event(WIRE_EVENT, params.value), params.text)


def decode(line: bytes) -> str:
    """The line as text.

    Raises:
        ProtocolError: it is no UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"not UTF-8 at byte {error.start}") from error


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
