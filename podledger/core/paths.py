"""Scope paths: normalised and compared as text, component by component, without access to a file system."""

from __future__ import annotations


def normalise(path: str) -> str:
    """Return `path` without `//` and `.`, and with `..` resolved where possible; an empty relative path becomes `.`."""
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


def is_absolute(path: str) -> bool:
    """Return whether a path begins at the root. Any other path means another place in each folder."""
    return path.startswith("/")


def ancestors(path: str) -> list[str]:
    """Return the normalised `path`, its parent, and so on up to `/` or `.`."""
    found = [path]
    while path not in ("/", "."):
        head, _, last = path.rpartition("/")
        if last == "..":
            break
        path = head or ("/" if path.startswith("/") else ".")
        found.append(path)
    return found


def covers(target: str, path: str, *, recursive: bool) -> bool:
    """Return whether a grant on `target` covers `path`; both must be normalised.

    A recursive grant covers its target and everything below. Any other grant covers its target and the target's direct
    children.
    """
    reach = ancestors(path)
    return target in (reach if recursive else reach[:2])
