"""Names and untrusted text: which names are valid, and how text is escaped."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podledger.core.errors import InvalidNameError, UsageError
from podledger.core.names import check_name
from podledger.core.text import escape

anything = st.text(st.characters(exclude_categories=()), max_size=40)


@pytest.mark.parametrize(
    "name", ["a", "...", "-", "a b", " ", "ä", "名前", "🤖", "a\\b", "a:b", ".a", "x" * 255, "ä" * 127]
)
def test_valid_name_is_returned(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "a/b", "a\x00", "a\nb", "\x1b[31m", "\x7f", "\x85", "x" * 256, "ä" * 128, "🤖" * 64, "\ud800"],
)
def test_invalid_name_is_an_error_with_a_hint(name: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        check_name(name)
    assert caught.value.hint
    assert caught.value.message.isprintable(), "an error must not control a terminal either"


def test_error_says_what_was_to_be_named() -> None:
    with pytest.raises(InvalidNameError, match="consumer"):
        check_name("a/b", "consumer")
    assert issubclass(InvalidNameError, UsageError)
    assert issubclass(InvalidNameError, ValueError), "pydantic reports it as an invalid field"


@given(anything)
def test_valid_names_match_the_documented_rule(name: str) -> None:
    """Not empty, `.` or `..`; no `/`, no control character, valid Unicode, at most 255 bytes of UTF-8."""
    unicode = not any(unicodedata.category(char) == "Cs" for char in name)
    controls = any(unicodedata.category(char) == "Cc" for char in name)
    valid = name not in ("", ".", "..") and "/" not in name and not controls and unicode and len(name.encode()) <= 255
    try:
        assert check_name(name) == name
    except InvalidNameError:
        assert not valid
    else:
        assert valid


@given(anything, st.one_of(st.none(), st.integers(0, 50)))
def test_escaped_text_is_one_printable_line(text: str, limit: int | None) -> None:
    line = escape(text, limit)
    assert line.isprintable()
    line.encode()


@given(st.text(st.characters(categories=("L", "N", "P", "S")), max_size=40))
def test_printable_text_is_unchanged(text: str) -> None:
    assert escape(text) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202eevil", "\\u202eevil"),
        ("\u2028", "\\u2028"),
        ("\U000e0001", "\\U000e0001"),
        ("\ud800", "\\ud800"),
        ("tab\there", "tab\\there"),
    ],
)
def test_control_characters_become_escapes(text: str, line: str) -> None:
    assert escape(text) == line


def test_cut_text_states_how_much_is_missing() -> None:
    assert escape("x" * 5_000, 10) == "x" * 10 + "… (4,990 more characters)"
    assert escape("x" * 10, 10) == "x" * 10
    assert escape("\n" * 3, 1) == "\\n… (2 more characters)"
