"""The fields that events are made of: names, texts, UUIDs, scopes and stamps."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints

from podledger.core.names import check_name
from podledger.core.stamps import Stamper, new_incarnation
from podledger.core.times import check_time, microseconds

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
"""One life of a pod: a UUIDv7 in lower case, so that of two the later is the greater text."""


class WireModel(BaseModel):
    """What every model of the wire shares: frozen, exact types, unknown fields ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ScopeRule(WireModel):
    """One rule of a scope: a path that a pod may read or write.

    A recursive rule covers `target` and everything below it, another `target` and its direct children.
    """

    target: Text
    permission: Literal["read", "write"]
    recursive: Annotated[bool, Strict()] = True


Scope = tuple[ScopeRule, ...]


class Stamp(WireModel):
    """What a podledger sender adds to an event so that order, loss and repetition can be told.

    `id` names the item (a redelivery keeps it), `source` the sender's incarnation, `sequence` counts from 1 by
    source, `time` is the sender's clock, `subject` the incarnation of the pod that the event is about; a sender that
    does not know it leaves it out, and the rules take the event as unstamped.
    """

    id: Uuid
    source: Incarnation
    sequence: Annotated[int, Strict(), Field(ge=1, le=(1 << 63) - 1)]
    time: Annotated[str, Strict(), AfterValidator(check_time)]
    subject: Incarnation | None = None

    @classmethod
    def naming(cls, subject: str) -> Self:
        """A stamp for a fact of the owner's own: all it does is name the incarnation that the fact is about."""
        return cls.model_validate(Stamper(new_incarnation()).stamp(subject))

    @property
    def sent_us(self) -> int:
        """`time` in microseconds since 1970."""
        return microseconds(datetime.fromisoformat(self.time.upper()))
