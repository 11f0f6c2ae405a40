"""Strict JSON: no repeated key, no lone surrogate, no number that a double cannot hold, limited depth.

Python's own decoder accepts these, so that two programs could read one line differently.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from podledger.core.errors import ProtocolError

dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Return a value as compact JSON, characters as they are."""

MAX_DEPTH: Final = 127
"""How deep arrays and objects may nest; the original runtime has the same limit (`docs/protocol.md`)."""

_WHITESPACE: Final = re.compile(r"[ \t\n\r]*")
_PLAIN_KEY: Final = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_AFTER_MEMBER: Final = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class Member(NamedTuple):
    """One member of an object: its key, its value and the exact text of the value."""

    key: str
    value: Any
    text: str


def loads(text: str, *, max_depth: int = MAX_DEPTH) -> Any:
    """Return the JSON value in `text`.

    Raises:
        ProtocolError: the text is not strict JSON.
    """
    value, end = _value(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise ProtocolError(f"unexpected text after the JSON value at character {end}")
    return checked(text, value, max_depth)


def members(text: str) -> dict[str, Member]:
    """Return the members of the JSON object in `text`, by key, each with its exact text.

    Raises:
        ProtocolError: the text is not strict JSON, or not an object.
    """
    found: dict[str, Member] = {}
    at = _expect(text, 0, "{")
    more = text[at : at + 1] != "}"
    while more:
        key, start = _key(text, at)
        value, end = _value(text, start)
        if key in found:
            raise ProtocolError("an object repeats a key")
        found[key] = Member(key, value, text[start:end])
        after = _AFTER_MEMBER.match(text, end)
        more = after is not None and after[1] == ","
        at = after.end() if after and more else end
    if _expect(text, at, "}") != len(text):
        raise ProtocolError("unexpected text after the JSON object")
    checked(text, {key: member.value for key, member in found.items()})
    return found


def last_member(text: str, at: int) -> tuple[Any, str] | None:
    """Return the value at `at` with its text if nothing but the closing brace of its object follows; else None.

    Raises:
        ProtocolError: the value is not strict JSON.
    """
    value, end = _value(text, at)
    if text[end:] != "}":
        return None
    return checked(text, value, MAX_DEPTH - 1), text[at:end]


def _key(text: str, at: int) -> tuple[str, int]:
    """Return a member's key and the position of its value."""
    plain = _PLAIN_KEY.match(text, at)
    if plain:
        return plain[1], plain.end()
    key, at = _value(text, at)
    if not isinstance(key, str):
        raise ProtocolError("an object's key is not a string")
    return key, _expect(text, at, ":")


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ProtocolError(f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from error


def _skip(text: str, at: int) -> int:
    match = _WHITESPACE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ProtocolError(f"expected {mark!r} at character {at}")
    return _skip(text, at + 1)


def checked(text: str, value: Any, max_depth: int = MAX_DEPTH) -> Any:
    """Return `value`, which was read from `text`.

    Raises:
        ProtocolError: it holds a lone surrogate, or is nested deeper than `max_depth`.
    """
    if "\\" in text and _SURROGATE.search(text):
        try:
            dumps(value).encode()
        except UnicodeEncodeError:
            raise ProtocolError("a string holds a lone surrogate") from None
    if text.count("{") + text.count("[") > max_depth and _depth(value) > max_depth:
        raise ProtocolError(f"nested deeper than {max_depth}")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("an object repeats a key")
    return found


def _integer(digits: str) -> int | float:
    if len(digits) > 300:
        _real(digits)
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ProtocolError("a number is too large")
    return value


def _constant(name: str) -> float:
    raise ProtocolError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant)
