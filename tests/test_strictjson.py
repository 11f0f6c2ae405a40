"""Strict JSON: accepted text means what `json` reads, and ambiguous text is rejected."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podledger.core import strict_json
from podledger.core.errors import ProtocolError
from podledger.core.strict_json import MAX_DEPTH, dumps, loads, members

characters = st.characters(codec="utf-8")
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(characters)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(characters), inner, max_size=4)
)
objects = st.dictionaries(st.text(characters), values, max_size=4)
styles = st.sampled_from([{}, {"indent": 1}, {"separators": (" ,\t", "\r: ")}, {"ensure_ascii": False}])
"""Options that write the same value in different ways."""

jsonish = st.text(st.sampled_from('{}[]:,"\\ \n\t0123456789.eE+-truefalsnudD89aAuN\x00é'), max_size=30)
"""Texts that are sometimes JSON."""


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal and of the same types: 1 is neither 1.0 nor true."""
    return repr(one) == repr(other)


@given(values, styles)
def test_loads_reads_what_json_writes(value: Any, style: dict[str, Any]) -> None:
    assert same(loads(json.dumps(value, **style)), value)


@given(objects, styles)
def test_members_have_values_and_their_exact_text(value: dict[str, Any], style: dict[str, Any]) -> None:
    text = f" \n{json.dumps(value, **style)}\t "
    found = members(text)
    assert same({key: member.value for key, member in found.items()}, value)
    assert all(same(json.loads(member.text), member.value) for member in found.values())
    assert all(member.text in text and member.text == member.text.strip() for member in found.values())


def read_by_json(text: str) -> tuple[bool, Any]:
    """Return whether `json` accepts a text, and the value."""
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        return False, None


@settings(max_examples=500)
@given(jsonish)
def test_accepted_text_has_the_value_that_json_reads(text: str) -> None:
    try:
        value = loads(text)
    except ProtocolError:
        return
    assert same((True, value), read_by_json(text))


@settings(max_examples=500)
@given(st.one_of(jsonish, jsonish.map(lambda text: f'{{"a":{text}}}'), jsonish.map(lambda text: f"{{{text}:1}}")))
def test_members_accepts_the_objects_that_loads_accepts(text: str) -> None:
    try:
        value = loads(text)
    except ProtocolError:
        value = None
    try:
        found = members(text)
    except ProtocolError:
        assert not isinstance(value, dict)
    else:
        assert same({key: member.value for key, member in found.items()}, value)


@settings(max_examples=300)
@given(objects, st.data())
def test_changed_character_is_rejected_or_read_as_json_does(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text) - 1))
    text = text[:at] + data.draw(st.sampled_from('{}[]:,"\\0x ')) + text[at + 1 :]
    accepted, meaning = read_by_json(text)
    try:
        assert same(loads(text), meaning)
    except ProtocolError:
        return
    assert accepted


REJECTED = {
    "nothing": "",
    "blank": " \n",
    "no end": '{"a":1',
    "two values": "1 2",
    "a comma too many": '{"a":1,}',
    "a comma alone": "{,}",
    "no colon": '{"a" 1}',
    "no comma": '{"a":1 "b":2}',
    "single quotes": "{'a':1}",
    "a bare key": "{a:1}",
    "a number for a key": "{1:2}",
    "null for a key": "{null:1}",
    "true for a key": "{true:1}",
    "a list for a key": "{[]:1}",
    "an object for a key": "{{}:1}",
    "a key twice": '{"a":1,"a":1}',
    "a key twice, escaped": '{"a":1,"\\u0061":2}',
    "a key twice, inside": '{"a":[{"b":1,"b":2}]}',
    "NaN": '{"a":NaN}',
    "Infinity": '{"a":Infinity}',
    "-Infinity": '{"a":-Infinity}',
    "beyond a double": '{"a":1e999}',
    "beyond a double, minus": '{"a":-1e999}',
    "an integer beyond a double": f'{{"a":{"9" * 400}}}',
    "an integer beyond Python": f'{{"a":{"9" * 5_000}}}',
    "leading zero": '{"a":01}',
    "leading plus": '{"a":+1}',
    "no digit after the point": '{"a":1.}',
    "hexadecimal": '{"a":0x1}',
    "a lone high surrogate": '{"a":"\\ud800"}',
    "a lone low surrogate": '{"a":"\\udc00"}',
    "surrogates the wrong way round": '{"a":"\\udc00\\ud800"}',
    "a lone surrogate for a key": '{"\\ud800":1}',
    "a raw newline in a string": '{"a":"\n"}',
    "a raw NUL in a string": '{"a":"\x00"}',
    "an escape that is none": '{"a":"\\x41"}',
    "a comment": '{"a":1} // no',
    "a byte order mark": '\ufeff{"a":1}',
    "a no-break space": '{"a":\u00a01}',
    "a form feed": '{"a":\f1}',
    "an Arabic digit": '{"a":\u0661}',
}


@pytest.mark.parametrize("text", REJECTED.values(), ids=REJECTED)
@pytest.mark.parametrize("read", [loads, members])
def test_ambiguous_text_is_rejected(read: Any, text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(text)
    assert caught.value.message


@pytest.mark.parametrize("text", ["[]", '"a"', "1", "null", "[{}]"])
def test_members_rejects_other_values(text: str) -> None:
    loads(text)
    with pytest.raises(ProtocolError):
        members(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\\\ud800"', "\\ud800"),
        ("-0", 0),
        ("-0.0", -0.0),
        ("1E5", 1e5),
        ("1e-999", 0.0),
        (f"1{'0' * 308}", 10**308),
        (str((1 << 64) + 1), (1 << 64) + 1),
        ('"\x7f\u2028"', "\x7f\u2028"),
        ('{"a":{"a":{"a":1}}}', {"a": {"a": {"a": 1}}}),
        ('{"":0}', {"": 0}),
    ],
)
def test_unusual_valid_text_is_accepted(text: str, value: Any) -> None:
    assert same(loads(text), value)


def nested(depth: int, opening: str, closing: str) -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_limited(opening: str, closing: str) -> None:
    assert loads(nested(MAX_DEPTH, opening, closing))
    for depth in (MAX_DEPTH + 1, 1_000, 100_000, 500_000):
        with pytest.raises(ProtocolError):
            loads(nested(depth, opening, closing))


def test_depth_includes_the_object_itself() -> None:
    assert members('{"a":' + nested(MAX_DEPTH - 1, "[", "]") + "}")
    for depth in (MAX_DEPTH, 100_000):
        with pytest.raises(ProtocolError):
            members('{"a":' + nested(depth, "[", "]") + "}")


def test_brackets_in_strings_do_not_count() -> None:
    assert loads(json.dumps({"a": "[" * 10_000, "b": "{" * 10_000}))


def test_many_shallow_values_are_accepted() -> None:
    assert len(loads("[" + "[]," * 100_000 + "[]]")) == 100_001


@given(values)
def test_dumps_is_compact_and_reads_back(value: Any) -> None:
    assert same(loads(dumps(value)), value)
    assert "\n" not in dumps(value)


def test_largest_double_is_finite_and_dumps_keeps_characters() -> None:
    assert math.isfinite(loads("1.7976931348623157e308"))
    assert strict_json.dumps({"é": 1}) == '{"é":1}'
