"""The digests that chain the log."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

NO_DIGEST: Final = "0" * 64
"""What the first entry of a ledger has for a previous digest."""


def payload_digest(payload: str) -> str:
    """SHA-256 of the payload's UTF-8, in hexadecimal."""
    return hashlib.sha256(payload.encode()).hexdigest()


WITHHELD: Final = "{}"
"""What stands in a bundle for the payload of an entry outside of its slice: no event is empty."""


def chain_digest(previous: str, fields: Sequence[Any], withheld: str | None = None) -> str:
    """SHA-256 over the previous digest and an entry's fields but `digest`, each on a line, null as an empty line.

    The payload's own digest stands for the payload: `withheld` is that where the payload is not there any more.
    `docs/ledger-format.md` states the form.
    """
    ledger, seq, recorded_us, evidence, kind, pod_name, payload = fields[:7]
    known = fields[7:15]
    lines = _BLANK if known == _UNKNOWN else "\n".join(["" if field is None else str(field) for field in known])
    text = (
        f"{previous}\n{ledger}\n{seq}\n{recorded_us}\n{evidence}\n{kind}\n{pod_name}\n"
        f"{withheld or payload_digest(payload)}\n{lines}\n{fields[15]}\n{fields[16]}"
    )
    return hashlib.sha256(text.encode()).hexdigest()


_UNKNOWN: Final = (None,) * 8
_BLANK: Final = "\n" * 7
"""The sender's and the stamp's fields where neither is known, and the lines that stand for them."""
