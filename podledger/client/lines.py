"""The line that reports an event.

This module imports neither SQLAlchemy, pydantic nor asyncio, so that a short-lived sender starts fast.
"""

from __future__ import annotations

from typing import Any, Final

from podledger.core import strict_json
from podledger.core.errors import InvalidEventError
from podledger.core.names import check_name

_NAMES: Final = ("pod_name", "parent_pod", "sub_pod")


def line_of(fields: dict[str, Any]) -> bytes:
    """Return the line that reports an event, which is given as its JSON object.

    Raises:
        InvalidNameError: a pod name is not valid.
        InvalidEventError: a text is not valid Unicode.
    """
    for key in _NAMES:
        if key in fields:
            check_name(fields[key])
    try:
        return strict_json.dumps({"method": "pod_event", "params": fields}).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise InvalidEventError("the event holds a lone surrogate", hint="give valid UTF-8") from error
