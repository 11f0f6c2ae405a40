"""The field types of events: names, UUIDs, scopes and stamps."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints

from podledger.core.names import check_name
from podledger.core.stamps import Stamper, new_incarnation
from podledger.core.times import rfc3339_microseconds

MAX_PATH_BYTES: Final = 4096
"""The longest path of a socket or a target: the kernel's own limit for a path."""

MAX_RULES: Final = 5_000
MAX_SCOPE_BYTES: Final = 128 << 10
"""The most rules of a scope, and the most bytes of their paths together. The receiver keeps scopes in memory."""


def _check_path(text: str) -> str:
    if len(text) > MAX_PATH_BYTES // 4 and len(text.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        raise ValueError(f"a path of more than {MAX_PATH_BYTES:,} bytes")
    return text


Text = Annotated[str, Strict()]
PathText = Annotated[str, Strict(), AfterValidator(_check_path)]
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

    target: PathText
    permission: Literal["read", "write"]
    recursive: Annotated[bool, Strict()] = True


def _check_scope(scope: tuple[ScopeRule, ...]) -> tuple[ScopeRule, ...]:
    if len(scope) > MAX_RULES:
        raise ValueError(f"more than {MAX_RULES:,} rules")
    if sum(len(rule.target.encode(errors="surrogatepass")) for rule in scope) > MAX_SCOPE_BYTES:
        raise ValueError(f"its paths are longer than {MAX_SCOPE_BYTES:,} bytes together")
    return scope


Scope = Annotated[tuple[ScopeRule, ...], AfterValidator(_check_scope)]


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
