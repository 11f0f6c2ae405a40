"""Names of pods, ledgers and consumers: which are valid."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from podledger.core.errors import InvalidNameError
from podledger.core.text import escape

MAX_NAME_BYTES: Final = 255
"""The longest name, in bytes of UTF-8: the limit of most file systems for one path component."""

_USUAL: Final = re.compile(rf"(?!\.)[ -.0-~]{{1,{MAX_NAME_BYTES}}}")
"""Most names: printable ASCII without a slash and not with a dot in front. They need no closer look."""


def check_name(name: str, what: str = "pod name") -> str:
    """Return `name` if it is valid; `what` is its designation in the error.

    Raises:
        InvalidNameError: the name is empty, `.` or `..`, contains `/`, a control character or a lone surrogate, or is
            longer than `MAX_NAME_BYTES`.
    """
    reason = "" if _USUAL.fullmatch(name) else _objection(name)
    if reason:
        raise InvalidNameError(f"{what} '{escape(name, 60)}' {reason}", hint="use a name that is valid for a folder")
    return name


def _objection(name: str) -> str:
    if not name:
        return "is empty"
    if name in (".", ".."):
        return "is reserved"
    if "/" in name:
        return "holds a slash"
    if any(unicodedata.category(char) == "Cc" for char in name):
        return "holds a control character"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "is not valid Unicode"
    return "" if len(name.encode()) <= MAX_NAME_BYTES else f"is longer than {MAX_NAME_BYTES} bytes"
