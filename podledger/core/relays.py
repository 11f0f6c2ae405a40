"""Relays: the fields that an owner adds to a report that it passes on to its own parent.

The original runtime relays a delegation with the relaying owner as `parent_pod`, and nothing else. A relay from
podledger also states the pod that really delegated, and the last entry of the relaying owner's log.
`docs/protocol.md` lists the fields.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from podledger.core.fields import Incarnation, PodName, Text, WireModel

MAX_PATH: Final = 1_000
"""The most pods on the way from the relaying owner down to the delegating pod."""

RelayedKind = Literal[
    "pod_spawned", "scope_sub_delegated", "turn_ended", "errored", "shut_down", "pod_exited", "pod_reclaimed"
]


class Relay(WireModel):
    """The origin of a relayed event.

    Attributes:
        kind: The kind of the entry in the relaying owner's ledger.
        evidence: The evidence of that entry.
        delegated_by: The pod that really delegated; `parent_pod` names the relaying owner.
        speaker: The incarnation of `delegated_by`, if known.
        path: The names from the relaying owner down to `delegated_by`.
        ledger: The relaying owner's ledger, with the `seq` and `digest` of its entry.
    """

    kind: RelayedKind
    evidence: Literal["reported", "observed", "inferred"]
    delegated_by: PodName | None = None
    speaker: Incarnation | None = None
    path: Annotated[tuple[PodName, ...], Field(max_length=MAX_PATH)] = ()
    ledger: Annotated[Text, StringConstraints(min_length=1, max_length=255)]
    seq: Annotated[int, Field(strict=True, ge=1, le=(1 << 63) - 1)]
    digest: Annotated[Text, StringConstraints(pattern="^[0-9a-f]{64}$")]
