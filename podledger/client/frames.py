"""The frames that a server sends: split from its bytes, with the offer and the answers in them.

This module imports little of the standard library, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import json
import re
from typing import Any, Final, NamedTuple

from podledger.core.text import escape

MAX_GREETING_BYTES: Final = 256 << 20
"""The most bytes that a server may send up to the end of its snapshot, and the most in any later frame."""

NOTHING: Final[frozenset[str]] = frozenset()
_EVENT: Final = re.compile(rb'\s*\{\s*"event"\s*:\s*"([a-z_]+)"\s*[,}]')
_OFFER: Final = b'"podledger"'


class Recorded(NamedTuple):
    """The receiver's answer to an event that it has committed: the stamp, and the entry's `seq` and `outcome`."""

    id: str
    source: str
    sequence: int
    seq: int
    outcome: str


class Refused(NamedTuple):
    """The receiver's answer to an event that it refused; `id` is empty if it could not read the stamp."""

    id: str
    message: str


Answer = Recorded | Refused


class Frames:
    """The bytes that arrived on a connection and were not taken yet."""

    __slots__ = ("_data", "_searched")

    def __init__(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes.

        Raises:
            OSError: the unfinished frame is too long.
        """
        self._data += data
        if len(self._data) > MAX_GREETING_BYTES:
            raise OSError(errno.EMSGSIZE, f"the server sent no whole frame within {MAX_GREETING_BYTES:,} bytes")

    def next(self) -> bytearray | None:
        """Take out the next frame that is not blank; return None if none has ended."""
        while (end := self._data.find(b"\n", self._searched)) >= 0:
            frame = self._data[:end]
            del self._data[: end + 1]
            self._searched = 0
            if frame and not frame.isspace():
                return frame
        self._searched = len(self._data)
        return None


def event_of(frame: bytearray) -> bytes:
    """Return the event name of a server's frame, mostly from its first bytes, without parsing a long one.

    Raises:
        ConnectionError: it is not a frame.
    """
    match = _EVENT.match(frame)
    if match and frame[-8:].rstrip().endswith(b"}"):
        return match[1]
    try:
        message = json.loads(frame.decode())
        return str(message["event"]).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        start = escape(bytes(frame[:60]).decode(errors="replace"))
        raise ConnectionError(f"the server sent something that is not a frame: {start}") from None


def may_offer(snapshot: bytearray) -> bool:
    """Return whether a snapshot can hold an offer, without parsing it: it may be many megabytes long."""
    return _OFFER in snapshot


def offer_of(snapshot: bytearray) -> frozenset[str]:
    """Return the extensions that the greeting accepts from podledger's senders; a malformed offer offers nothing."""
    try:
        offer = json.loads(snapshot.decode())["data"]["greeting"]["podledger"]
        version, accepts = offer["version"], offer["accepts"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return NOTHING
    is_valid = type(version) is int and version == 1 and isinstance(accepts, list)
    return frozenset(accepts) if is_valid and all(isinstance(word, str) for word in accepts) else NOTHING


def answer_of(frame: bytearray) -> Answer | None:
    """Return the answer to an event in a frame; None if it is another frame.

    Raises:
        ConnectionError: it is not a frame.
    """
    event = event_of(frame)
    if event not in (b"pod_event_recorded", b"error"):
        return None
    try:
        data = json.loads(frame.decode())["data"]
        return _recorded(data) if event == b"pod_event_recorded" else _refused(data)
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _recorded(data: dict[str, Any]) -> Recorded:
    answer = Recorded(*(data[name] for name in Recorded._fields))
    texts, numbers = (answer.id, answer.source, answer.outcome), (answer.sequence, answer.seq)
    if not all(type(text) is str for text in texts) or not all(type(number) is int for number in numbers):
        raise TypeError("an answer with a field of another type")
    return answer


def _refused(data: dict[str, Any]) -> Refused | None:
    if data["code"] != "invalid_request":
        return None
    about = data.get("id", "")
    return Refused(about if isinstance(about, str) else "", escape(str(data.get("message", "")), 300))
