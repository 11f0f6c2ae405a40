"""JSON as the socket's peers read it: no repeated key, no lone surrogate, no number beyond a double, bounded depth.

Python's own decoder lets these through, so two readers of one line could come to two meanings.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from podledger.core.errors import ProtocolError

dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Return a value as compact JSON, characters as they are."""

MAX_DEPTH: Final = 127
"""How deep arrays and objects may nest: the limit of the seed system's parser."""

_BLANK = re.compile(r"[ \t\n\r]*")
_PLAIN_NAME = re.compile(r'[ \t\n\r]*"([^"\\\x00-\x1f]*)"[ \t\n\r]*:[ \t\n\r]*')
_AFTER_MEMBER = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Member(NamedTuple):
    """One member of an object: its name, its value, and the text that the value was read from."""

    key: str
    value: Any
    text: str


def loads(text: str, *, max_depth: int = MAX_DEPTH) -> Any:
    """The one JSON value that `text` is.

    Raises:
        ProtocolError: it is not JSON, or JSON that two readers could read differently.
    """
    value, end = _value(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise ProtocolError(f"something follows the JSON value at character {end}")
    return _sound(text, value, max_depth)


def members(text: str) -> dict[str, Member]:
    """The members of the one JSON object that `text` is, by name, each with its exact text.

    Raises:
        ProtocolError: it is no JSON object, or not one that every reader reads alike.
    """
    found: dict[str, Member] = {}
    at = _expect(text, 0, "{")
    more = text[at : at + 1] != "}"
    while more:
        name, start = _name(text, at)
        value, end = _value(text, start)
        if name in found:
            raise ProtocolError("a key is there twice in one object")
        found[name] = Member(name, value, text[start:end])
        after = _AFTER_MEMBER.match(text, end)
        more = after is not None and after[1] == ","
        at = after.end() if after and more else end
    if _expect(text, at, "}") != len(text):
        raise ProtocolError("something follows the JSON object")
    _sound(text, {name: member.value for name, member in found.items()})
    return found


def last_member(text: str, at: int) -> tuple[Any, str] | None:
    """The value at `at`, with its text, if all that follows is the brace that closes the object around it; else None.

    Raises:
        ProtocolError: it is not JSON, or not such as every reader reads alike.
    """
    value, end = _value(text, at)
    if text[end:] != "}":
        return None
    return _sound(text, value, MAX_DEPTH - 1), text[at:end]


def _name(text: str, at: int) -> tuple[str, int]:
    """A member's name, and where its value begins."""
    plain = _PLAIN_NAME.match(text, at)
    if plain:
        return plain[1], plain.end()
    name, at = _value(text, at)
    if not isinstance(name, str):
        raise ProtocolError("a member's name is no string")
    return name, _expect(text, at, ":")


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise ProtocolError(f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise ProtocolError(f"not JSON: {error}") from error


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ProtocolError(f"{mark!r} is missing at character {at}")
    return _skip(text, at + 1)


def _sound(text: str, value: Any, max_depth: int = MAX_DEPTH) -> Any:
    if "\\" in text and _SURROGATE.search(text):
        try:
            dumps(value).encode()
        except UnicodeEncodeError:
            raise ProtocolError("a lone surrogate is no character") from None
    check_depth(text, value, max_depth)
    return value


def check_depth(text: str, value: Any, max_depth: int = MAX_DEPTH) -> None:
    """See that `value`, which was read from `text`, is not nested deeper than `max_depth`.

    Raises:
        ProtocolError: it is.
    """
    if text.count("{") + text.count("[") > max_depth and _depth(value) > max_depth:
        raise ProtocolError(f"nested deeper than {max_depth}")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("a key is there twice in one object")
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
    raise ProtocolError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_real, parse_constant=_constant)
