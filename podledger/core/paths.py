"""Scope paths: compared by component after lexical normalisation, never looked up on a disk."""

from __future__ import annotations


def normalise(path: str) -> str:
    """`path` without `//`, `.` and whatever `..` can undo; `.` for the empty relative path."""
    absolute = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            kept.append(part)
        elif kept and kept[-1] != "..":
            kept.pop()
        elif not absolute:
            kept.append(part)
    return ("/" if absolute else "") + "/".join(kept) or "."


def ancestors(path: str) -> list[str]:
    """The normalised `path` itself, its parent, and so on up to `/` or `.`."""
    found = [path]
    while path not in ("/", "."):
        head, _, last = path.rpartition("/")
        if last == "..":
            break
        path = head or ("/" if path.startswith("/") else ".")
        found.append(path)
    return found


def covers(target: str, path: str, *, recursive: bool) -> bool:
    """Whether a grant on `target` reaches `path` (both normalised).

    A recursive grant reaches its target and all below, another its target and the target's direct children.
    """
    reach = ancestors(path)
    return target in (reach if recursive else reach[:2])
