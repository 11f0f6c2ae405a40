"""Names that arrive from models and strangers: which are taken, and how any text is shown safely."""

from __future__ import annotations

import unicodedata

from podledger.errors import InvalidNameError

MAX_NAME_BYTES = 255
"""The longest name, in bytes of UTF-8: what a file system takes as one path component."""


def check_name(name: str, what: str = "pod name") -> str:
    """Return `name` if a pod, ledger or consumer may bear it.

    Raises:
        InvalidNameError: it is empty, `.` or `..`, holds `/` or a control character, or is too long.
    """
    reason = _objection(name)
    if reason:
        raise InvalidNameError(f"{what} '{shown(name, 60)}' {reason}", hint="use a name that could name a folder")
    return name


def _objection(name: str) -> str:
    if not name:
        return "is empty"
    if name in (".", ".."):
        return "is reserved"
    if "/" in name:
        return "holds a slash"
    if name.isascii() and name.isprintable():
        return "" if len(name) <= MAX_NAME_BYTES else _TOO_LONG
    if any(unicodedata.category(char) == "Cc" for char in name):
        return "holds a control character"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "is no valid Unicode"
    return "" if len(name.encode()) <= MAX_NAME_BYTES else _TOO_LONG


_TOO_LONG = f"is longer than {MAX_NAME_BYTES} bytes"


def shown(text: str, limit: int | None = None) -> str:
    r"""`text` in one line that no terminal, page or log can be steered by.

    Control, format (bidirectional ones too), separator and unassigned characters become escapes (`\n`, `\x1b`,
    `\u202e`); what is beyond `limit` characters is cut and counted.
    """
    rest = 0 if limit is None else max(0, len(text) - limit)
    kept = text[:limit] if rest else text
    if not kept.isprintable():
        kept = "".join(char if char.isprintable() else _escaped(char) for char in kept)
    return f"{kept}… ({rest:,} more characters)" if rest else kept


def counted(count: int, one: str, many: str | None = None) -> str:
    """How many of a thing there are: `1 entry`, `2,000 entries`; without `many`, an s is put to `one`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
