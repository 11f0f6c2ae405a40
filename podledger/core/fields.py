"""The field types of events: names, UUIDs, scopes and stamps."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints

from podledger.core.names import check_name
from podledger.core.stamps import Stamper, new_incarnation
from podledger.core.times import rfc3339_microseconds

Text = Annotated[str, Strict()]
PodName = Annotated[str, Strict(), AfterValidator(check_name)]
Int = Annotated[int, Strict(), Field(ge=-(1 << 63), le=(1 << 63) - 1)]

_HEX4 = "[0-9a-fA-F]{4}"
Uuid = Annotated[
    str,
    Strict(),
    StringConstraints(pattern=f"^{_HEX4}{_HEX4}-{_HEX4}-{_HEX4}-{_HEX4}-{_HEX4 * 3}$", to_lower=True),
]
Incarnation = Annotated[
    str,
    Strict(),
    StringConstraints(
        pattern=f"^{_HEX4}{_HEX4}-{_HEX4}-7[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}-{_HEX4 * 3}$",
        to_lower=True,
    ),
]
"""The incarnation of a pod: a UUIDv7 in lower case, so that a later one sorts after an earlier one."""


class WireModel(BaseModel):
    """The base of all models: frozen, and unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ScopeRule(WireModel):
    """One rule of a scope: a path that a pod may read or write.

    A recursive rule covers `target` and everything below. Any other rule covers `target` and its direct children.
    """

    target: Text
    permission: Literal["read", "write"]
    recursive: Annotated[bool, Strict()] = True


Scope = tuple[ScopeRule, ...]


def _check_time(text: str) -> str:
    rfc3339_microseconds(text)
    return text


class Stamp(WireModel):
    """The stamp that a podledger sender adds to an event, so that the receiver can detect order, loss and repetition.

    Attributes:
        id: The UUID of this emission. A redelivery keeps it.
        source: The stream: one per sending process, or per shared spool. Never an incarnation.
        sequence: Counts the events of one source: 1, 2, 3, …
        time: The sender's clock, in RFC 3339.
        subject: The incarnation of the pod that the event is about. A sender that does not know it omits it, and the
            rules treat the event as unstamped.
        speaker: The incarnation of the pod that speaks, if the sender knows it.
        ack: Whether the receiver is to answer once the event is committed.
    """

    id: Uuid
    source: Incarnation
    sequence: Annotated[int, Strict(), Field(ge=1, le=(1 << 63) - 1)]
    time: Annotated[str, Strict(), AfterValidator(_check_time)]
    subject: Incarnation | None = None
    speaker: Incarnation | None = None
    ack: Annotated[bool, Strict(), Field(exclude_if=lambda ack: not ack)] = False

    @classmethod
    def naming(cls, subject: str) -> Self:
        """Return a stamp for a fact that the owner records itself: it serves only to state the incarnation."""
        return cls.model_validate(Stamper(new_incarnation()).stamp(subject))

    @property
    def sent_us(self) -> int:
        """The stamp's `time` in microseconds since 1970."""
        return rfc3339_microseconds(self.time)
