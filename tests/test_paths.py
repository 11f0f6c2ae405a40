"""Scope paths compared with the standard library: by component, never by prefix, never on disk."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podledger.core.paths import ancestors, covers, normalise
from podledger.core.protocol import ScopeRule
from tests.model import reaches

parts = st.sampled_from(("a", "b", "ab", ".", "..", "", "...", "é", " "))
whole = st.tuples(st.sampled_from(("/", "", "//", "///")), st.lists(parts, max_size=6).map("/".join)).map("".join)


@given(whole)
def test_normalisation_equals_posixpath_except_double_slash(path: str) -> None:
    """POSIX lets a leading `//` have its own meaning; for a scope it is the root."""
    expected = posixpath.normpath(path)
    assert normalise(path) == (expected[1:] if expected.startswith("//") else expected)


@given(whole)
def test_normalisation_is_idempotent(path: str) -> None:
    assert normalise(normalise(path)) == normalise(path)


@given(whole)
def test_ancestors_equal_pathlib_s(path: str) -> None:
    """Except above `..`, where the ancestors are unknown."""
    found = ancestors(normalise(path))
    pure = PurePosixPath(normalise(path))
    expected = [str(pure), *map(str, pure.parents)]
    if ".." in pure.parts:
        above = PurePosixPath(*[part for part in pure.parts if part == ".."])
        expected = expected[: expected.index(str(above)) + 1]
    assert found == expected


@given(whole, whole)
def test_recursive_rule_covers_everything_below(target: str, path: str) -> None:
    target, path = normalise(target), normalise(path)
    below = PurePosixPath(path).is_relative_to(target) and ".." not in PurePosixPath(path).relative_to(target).parts
    assert covers(target, path, recursive=True) == below


@given(whole, whole)
def test_non_recursive_rule_covers_direct_children(target: str, path: str) -> None:
    target, path = normalise(target), normalise(path)
    child = PurePosixPath(path).parent == PurePosixPath(target) and PurePosixPath(path).name != ".."
    assert covers(target, path, recursive=False) == (path == target or (child and path not in ("/", ".")))


@given(whole, whole, st.booleans())
def test_coverage_equals_the_model(target: str, path: str, recursive: bool) -> None:
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
def test_coverage_of_example_paths(target: str, path: str, recursive: bool, covered: bool) -> None:
    assert covers(target, path, recursive=recursive) is covered


def test_paths_are_never_resolved_on_disk() -> None:
    """A symbolic link is treated as a plain name: `/proc/self/..` is `/proc`."""
    assert normalise("/proc/self/cwd/..") == "/proc/self"
