"""Lines out of a stream of bytes. A line that is too long is cut short, and the rest of it is not kept."""

from __future__ import annotations

from typing import Final, NamedTuple

KEPT_BYTES: Final = 64 << 10
"""How much is kept of a line that is cut short."""

BLANK: Final = b" \t\r"
"""A line of only these bytes is no message."""


class Frame(NamedTuple):
    """A line without its newline; `fault` is the reason why it was cut short, empty for a whole line."""

    raw: bytes
    fault: str = ""


class LineBuffer:
    """The bytes received on one connection that no line was taken from yet; its length is in bytes."""

    __slots__ = ("_data", "_max_bytes", "_searched", "_skipping")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = bytearray()
        self._searched = 0
        self._skipping = False

    def __len__(self) -> int:
        return len(self._data)

    @property
    def holds_message(self) -> bool:
        """Whether a line has ended that is not blank."""
        return b"\n" in self._data.lstrip(BLANK + b"\n")

    def feed(self, data: bytes) -> None:
        """Add received bytes, except the rest of a line that was cut short."""
        if self._skipping:
            end = data.find(b"\n")
            if end < 0:
                return
            self._skipping = False
            data = data[end + 1 :]
        self._data += data

    def next(self) -> Frame | None:
        """Take out the next line, or return None if none has ended. A line that grows too long is cut short at once."""
        end = self._data.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._data)
            return self.cut_short(self._too_long()) if len(self._data) > self._max_bytes else None
        raw = bytes(memoryview(self._data)[:end])
        del self._data[: end + 1]
        self._searched = 0
        return Frame(raw) if end <= self._max_bytes else Frame(raw[:KEPT_BYTES], self._too_long())

    def last(self) -> Frame | None:
        """Take out the bytes after the last newline, once nothing more will arrive; return None if there are none."""
        if not self._data:
            return None
        raw = bytes(self._data)
        self._clear()
        return Frame(raw)

    def cut_short(self, fault: str) -> Frame:
        """Take out the received part of an unfinished line, and skip the rest of that line."""
        raw = bytes(memoryview(self._data)[:KEPT_BYTES])
        self._clear()
        self._skipping = True
        return Frame(raw, fault)

    def _clear(self) -> None:
        self._data = bytearray()
        self._searched = 0

    def _too_long(self) -> str:
        return f"longer than {self._max_bytes:,} bytes; the first {KEPT_BYTES:,} are kept"
