"""Strict JSON: what it takes means what `json` says, and it takes no text that two readers could differ on."""

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
"""Ways to write the same value."""

jsonish = st.text(st.sampled_from('{}[]:,"\\ \n\t0123456789.eE+-truefalsnudD89aAuN\x00é'), max_size=30)
"""Texts that are JSON now and then."""


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1 is not 1.0 nor true."""
    return repr(one) == repr(other)


@given(values, styles)
def test_it_reads_what_json_writes(value: Any, style: dict[str, Any]) -> None:
    assert same(loads(json.dumps(value, **style)), value)


@given(objects, styles)
def test_members_are_the_object_s_with_the_text_of_each_value(value: dict[str, Any], style: dict[str, Any]) -> None:
    text = f" \n{json.dumps(value, **style)}\t "
    found = members(text)
    assert same({key: member.value for key, member in found.items()}, value)
    assert all(same(json.loads(member.text), member.value) for member in found.values())
    assert all(member.text in text and member.text == member.text.strip() for member in found.values())


def json_takes(text: str) -> tuple[bool, Any]:
    """Whether `json` takes a text, and as what."""
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        return False, None


@settings(max_examples=500)
@given(jsonish)
def test_what_it_takes_json_takes_and_reads_alike(text: str) -> None:
    try:
        value = loads(text)
    except ProtocolError:
        return
    assert same((True, value), json_takes(text))


@settings(max_examples=500)
@given(st.one_of(jsonish, jsonish.map(lambda text: f'{{"a":{text}}}'), jsonish.map(lambda text: f"{{{text}:1}}")))
def test_members_takes_just_the_objects_that_loads_takes(text: str) -> None:
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
def test_a_text_with_one_character_changed_is_read_as_json_reads_it_or_refused(value: Any, data: st.DataObject) -> None:
    text = json.dumps(value)
    at = data.draw(st.integers(0, len(text) - 1))
    text = text[:at] + data.draw(st.sampled_from('{}[]:,"\\0x ')) + text[at + 1 :]
    takes, meaning = json_takes(text)
    try:
        assert same(loads(text), meaning)
    except ProtocolError:
        return
    assert takes


REFUSED = {
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


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("read", [loads, members])
def test_what_two_readers_could_read_differently_is_refused(read: Any, text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(text)
    assert caught.value.message


@pytest.mark.parametrize("text", ["[]", '"a"', "1", "null", "[{}]"])
def test_members_wants_an_object(text: str) -> None:
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
def test_what_is_odd_but_plain_is_taken(text: str, value: Any) -> None:
    assert same(loads(text), value)


def nested(depth: int, opening: str, closing: str) -> str:
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded(opening: str, closing: str) -> None:
    assert loads(nested(MAX_DEPTH, opening, closing))
    for depth in (MAX_DEPTH + 1, 1_000, 100_000, 500_000):
        with pytest.raises(ProtocolError):
            loads(nested(depth, opening, closing))


def test_depth_counts_the_object_itself() -> None:
    assert members('{"a":' + nested(MAX_DEPTH - 1, "[", "]") + "}")
    for depth in (MAX_DEPTH, 100_000):
        with pytest.raises(ProtocolError):
            members('{"a":' + nested(depth, "[", "]") + "}")


def test_brackets_in_a_text_are_no_depth() -> None:
    assert loads(json.dumps({"a": "[" * 10_000, "b": "{" * 10_000}))


def test_a_million_shallow_members_are_fine() -> None:
    assert len(loads("[" + "[]," * 100_000 + "[]]")) == 100_001


@given(values)
def test_what_it_writes_is_compact_and_reads_back(value: Any) -> None:
    assert same(loads(dumps(value)), value)
    assert "\n" not in dumps(value)


def test_a_number_that_is_none_never_comes_out() -> None:
    assert math.isfinite(loads("1.7976931348623157e308"))
    assert strict_json.dumps({"é": 1}) == '{"é":1}'
