"""Scope paths, against what the standard library makes of paths: by component, never by prefix, never on a disk."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podledger.core.fields import ScopeRule
from podledger.core.paths import ancestors, covers, normalise
from tests.model import reaches

parts = st.sampled_from(("a", "b", "ab", ".", "..", "", "...", "é", " "))
whole = st.tuples(st.sampled_from(("/", "", "//", "///")), st.lists(parts, max_size=6).map("/".join)).map("".join)


@given(whole)
def test_normalising_is_posixpath_s_but_for_the_double_slash(path: str) -> None:
    """POSIX lets `//` at the start mean something of its own; to a scope it is the root."""
    expected = posixpath.normpath(path)
    assert normalise(path) == (expected[1:] if expected.startswith("//") else expected)


@given(whole)
def test_normalising_twice_changes_nothing(path: str) -> None:
    assert normalise(normalise(path)) == normalise(path)


@given(whole)
def test_ancestors_are_pathlib_s(path: str) -> None:
    """But that nothing is known of what is above `..`."""
    found = ancestors(normalise(path))
    pure = PurePosixPath(normalise(path))
    expected = [str(pure), *map(str, pure.parents)]
    if ".." in pure.parts:
        above = PurePosixPath(*[part for part in pure.parts if part == ".."])
        expected = expected[: expected.index(str(above)) + 1]
    assert found == expected


@given(whole, whole)
def test_a_recursive_rule_covers_what_is_relative_to_its_target(target: str, path: str) -> None:
    target, path = normalise(target), normalise(path)
    below = PurePosixPath(path).is_relative_to(target) and ".." not in PurePosixPath(path).relative_to(target).parts
    assert covers(target, path, recursive=True) == below


@given(whole, whole)
def test_another_covers_its_target_and_direct_children(target: str, path: str) -> None:
    target, path = normalise(target), normalise(path)
    child = PurePosixPath(path).parent == PurePosixPath(target) and PurePosixPath(path).name != ".."
    assert covers(target, path, recursive=False) == (path == target or (child and path not in ("/", ".")))


@given(whole, whole, st.booleans())
def test_it_is_what_the_model_says(target: str, path: str, recursive: bool) -> None:
    rule = ScopeRule(target=target, permission="write", recursive=recursive)
    assert covers(normalise(target), normalise(path), recursive=recursive) == reaches(rule, path)


@pytest.mark.parametrize(
    ("target", "path", "recursive", "covered"),
    [
        ("/srv", "/srv", False, True),
        ("/srv", "/srv/a", False, True),
        ("/srv", "/srv/a/b", False, False),
        ("/srv", "/srv/a/b", True, True),
        ("/srv", "/srvx", True, False),
        ("/", "/anything/at/all", True, True),
        ("/", "/a", False, True),
        ("/", "/a/b", False, False),
        ("/srv/a", "/srv", True, False),
        (".", "a/b", True, True),
        (".", "/a", True, False),
        (".", "../a", True, False),
        ("..", "../a", True, True),
        ("..", "../../a", True, False),
    ],
)
def test_what_a_rule_reaches(target: str, path: str, recursive: bool, covered: bool) -> None:
    assert covers(target, path, recursive=recursive) is covered


def test_nothing_is_looked_up_on_a_disk() -> None:
    """A symbolic link is a name like any other: `/proc/self/..` is `/proc`, wherever it would lead."""
    assert normalise("/proc/self/cwd/..") == "/proc/self"
