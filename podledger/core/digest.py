"""The digests that chain the entries of a log; `docs/ledger-format.md` specifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final

NO_DIGEST: Final = "0" * 64
"""The previous digest of a ledger's first entry."""


def payload_digest(payload: str) -> str:
    """Return the SHA-256 of the payload's UTF-8, in hexadecimal."""
    return hashlib.sha256(payload.encode()).hexdigest()


NO_PAYLOAD: Final = "{}"
"""The payload of an entry whose payload the database does not hold. No event has this payload."""


def chain_digest(previous: str, fields: Sequence[Any], absent_payload_digest: str | None = None) -> str:
    """Return the digest of an entry: SHA-256 over the previous digest and the entry's fields, one a line.

    `fields` are those of `Entry` before `digest`; None becomes an empty line. The payload is represented by its own
    digest, which is `absent_payload_digest` if the database does not hold the payload.
    """
    ledger, seq, recorded_us, evidence, kind, pod_name, payload = fields[:7]
    known = fields[7:18]
    lines = _BLANK if known == _UNKNOWN else "\n".join(["" if field is None else str(field) for field in known])
    text = (
        f"{previous}\n{ledger}\n{seq}\n{recorded_us}\n{evidence}\n{kind}\n{pod_name}\n"
        f"{absent_payload_digest or payload_digest(payload)}\n{lines}\n{fields[18]}\n{fields[19]}"
    )
    return hashlib.sha256(text.encode()).hexdigest()


_UNKNOWN: Final = (None,) * 11
_BLANK: Final = "\n" * 10
"""The sender and the stamp of most local facts: nothing is known, and the lines are empty."""
