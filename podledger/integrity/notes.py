"""Notes of a ledger: its digest at a seq, which you keep elsewhere and later compare the log with.

The chain of digests shows a change in one place. Someone who can write the file can also write a whole new chain; they
cannot change a note that was taken earlier and kept out of their reach.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Strict, StringConstraints, TypeAdapter, ValidationError
from sqlalchemy import Connection, select

from podledger.core import strict_json
from podledger.core.digest import NO_DIGEST
from podledger.core.errors import ProtocolError, UsageError
from podledger.core.problem import Problem
from podledger.queries.moments import Moment, resolve
from podledger.store.log import read_head
from podledger.store.tables import events

_PLAIN: Final = re.compile(r"(\d{1,19}):([0-9a-fA-F]{64})")
_TITLE: Final = "podledger note 1"


class Note(NamedTuple):
    """The digest of a ledger at a seq."""

    seq: int
    digest: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.digest}"


_Line = Annotated[str, Strict(), StringConstraints(pattern=r"^[^\n]*$")]
_Digest = Annotated[str, Strict(), StringConstraints(pattern="^[0-9a-f]{64}$")]


class SignedNote(NamedTuple):
    """A note with the name of its ledger and the time it was taken, signed with an Ed25519 key.

    `time` is the signer's clock in RFC 3339; `public_key` and `signature` are the raw bytes in hexadecimal.
    """

    ledger: _Line
    seq: Annotated[int, Strict()]
    digest: _Digest
    time: _Line
    public_key: _Line
    signature: _Line

    @property
    def note(self) -> Note:
        """The note that is signed."""
        return Note(self.seq, self.digest)

    def text(self) -> bytes:
        """Return the text that is signed: a title and every other field, one to a line. No field can hold a newline."""
        return "\n".join((_TITLE, *map(str, self[:5]), "")).encode()

    def as_json(self) -> dict[str, Any]:
        """Return the note as `digest --key` prints it."""
        return self._asdict()


_SIGNED: Final = TypeAdapter(SignedNote)


def parse_note(text: str) -> Note:
    """Return the note that a text in the form `SEQ:DIGEST` states.

    Raises:
        UsageError: the text has another form.
    """
    match = _PLAIN.fullmatch(text.strip())
    if match is None:
        hint = "give the output of `podledger digest`: a number, a colon and 64 hexadecimal digits"
        raise UsageError(f"{text[:90]!r} is not a note", hint=hint)
    return Note(int(match[1]), match[2].lower())


def parse_signed_note(text: str) -> SignedNote:
    """Return the signed note that a JSON object states, without checking its signature.

    Raises:
        UsageError: the text is not such an object.
    """
    try:
        return _SIGNED.validate_python(strict_json.loads(text))
    except (ProtocolError, ValidationError) as error:
        hint = "give the file that `podledger digest --key` wrote"
        raise UsageError("the file holds no signed note", hint=hint) from error


def note_at(connection: Connection, ledger: str, at: Moment) -> Note:
    """Return the ledger's note at a moment.

    Raises:
        InvalidMomentError: the moment is not in the log.
    """
    seq = resolve(connection, ledger, at)
    return Note(seq, stored_digest(connection, ledger, seq) or read_head(connection, ledger).head_digest)


def stored_digest(connection: Connection, ledger: str, seq: int) -> str | None:
    """Return the digest of the entry with this seq, or None if the log holds no such entry."""
    if seq == 0:
        return NO_DIGEST
    return connection.execute(select(events.c.digest).where(events.c.ledger == ledger, events.c.seq == seq)).scalar()


def note_problems(connection: Connection, ledger: str, expected: Sequence[Note]) -> Iterator[Problem]:
    """Yield the differences between the log and notes that were taken of it."""
    find = partial(stored_digest, connection, ledger)
    for note in expected:
        digest = find(note.seq)
        if digest is None:
            yield Problem("expect", note.seq, f"the log does not hold seq {note.seq}, whose digest was noted")
        elif digest != note.digest:
            detail = f"its digest is {digest}, but {note.digest} was noted: this or an earlier entry was rewritten"
            yield Problem("expect", note.seq, detail)
