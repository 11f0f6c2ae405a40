"""Carrying events in and out: lines of a file into a ledger, a ledger's log into lines.

An export's lines are the objects of `events --json`; imported into an empty ledger of the same name they keep their
seq, time and digest, byte for byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, get_args

from podledger import protocol, strictjson
from podledger.errors import ProtocolError
from podledger.events import EVIDENCE, Draft, Entry, Evidence, Outcome, draft, event_from, parse_event
from podledger.ledger import Ledger
from podledger.log import Rejection
from podledger.protocol import Report, microseconds

MAX_LINE_BYTES: Final = 16 << 20
"""The longest line of a file that is taken: an exported entry holds its payload twice, and escaped."""

BATCH: Final = 2_000
KEPT_OF_LONG_LINE: Final = 64 << 10


class Line(NamedTuple):
    """A line of a file: its number from 1, and what it is (None: a method that is no event)."""

    number: int
    content: Draft | Entry | Rejection | None


class Imported(NamedTuple):
    """What an import did: events appended, entries restored, entries that were there, lines that are no events.

    `problems` tells of each rejected line its number and the reason.
    """

    appended: int = 0
    restored: int = 0
    present: int = 0
    skipped: int = 0
    problems: tuple[tuple[int, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The result as `import --json` prints it."""
        problems = [{"line": number, "reason": reason} for number, reason in self.problems]
        return self._asdict() | {"problems": problems}


def read_lines(lines: Iterable[bytes], owner: str) -> Iterator[Line]:
    """What each line of a file is; blank lines are passed over, an overlong one is cut and rejected."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Line(number, read_line(line.strip(b"\r\n \t"), owner))


def read_line(line: bytes, owner: str) -> Draft | Entry | Rejection | None:
    """What one line is: a wire line, a bare event object, an exported entry, or nothing of the kind."""
    if len(line) > MAX_LINE_BYTES:
        return Rejection(line[:KEPT_OF_LONG_LINE], f"longer than {MAX_LINE_BYTES} bytes; its start is kept", None)
    try:
        return _read(line, owner)
    except ProtocolError as error:
        return Rejection(line, error.message, None)


def _read(line: bytes, owner: str) -> Draft | Entry | None:
    text = protocol.decode(line)
    members = strictjson.members(text)
    if "method" in members:
        read = protocol.parse_line(line)
        return draft(read.event, owner, payload=read.payload) if isinstance(read, Report) else None
    fields = {name: member.value for name, member in members.items()}
    if "digest" in fields and "seq" in fields:
        return entry_from(fields)
    if "kind" in fields:
        return draft(event_from(fields), owner, payload=text.strip())
    raise ProtocolError("neither a method, nor an event, nor an exported entry")


def entry_from(fields: dict[str, Any]) -> Entry:
    """The entry that an object of `events --json` states; whether its digest is right is for the chain to say.

    Raises:
        ProtocolError: it states none.
    """
    payload = fields.get("payload")
    if payload is None:
        payload = strictjson.dumps(fields.get("event"))
    elif not isinstance(payload, str) or fields.get("event", ...) not in (..., strictjson.loads(payload)):
        raise ProtocolError("event and payload differ")
    stamp = parse_event(payload).stamp
    sender = fields.get("sender") or {}
    if not isinstance(sender, dict):
        raise ProtocolError("sender is no object")
    return Entry(
        ledger=_text(fields, "ledger"),
        seq=_whole(fields, "seq"),
        recorded_us=_time(fields, "recorded_at"),
        evidence=_word(fields, "evidence", Evidence),
        kind=_word(fields, "kind", None),
        pod_name=_text(fields, "pod_name"),
        payload=payload,
        pid=_whole(sender, "pid") if sender else None,
        uid=_whole(sender, "uid") if sender else None,
        gid=_whole(sender, "gid") if sender else None,
        stamp_id=stamp.id if stamp else None,
        source=stamp.source if stamp else None,
        sequence=stamp.sequence if stamp else None,
        sent_us=stamp.sent_us if stamp else None,
        subject=stamp.subject if stamp else None,
        outcome=_word(fields, "outcome", Outcome),
        rules=_whole(fields, "rules"),
        digest=_text(fields, "digest"),
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} is missing, or no text")
    return value


def _whole(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
        raise ProtocolError(f"{name} is missing, or no whole number")
    return value


def _word(fields: dict[str, Any], name: str, words: Any) -> Any:
    value = _text(fields, name)
    if value not in (get_args(words) if words else EVIDENCE):
        raise ProtocolError(f"{name} {value[:40]!r} is not known")
    return value


def _time(fields: dict[str, Any], name: str) -> int:
    try:
        return microseconds(datetime.fromisoformat(_text(fields, name)))
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"{name} is no time with its zone") from error


async def import_lines(ledger: Ledger, lines: Iterable[Line]) -> AsyncIterator[Imported]:
    """Take lines into the ledger, a batch a transaction; after each, what was done so far.

    Raises:
        StorageError: a batch was not committed; those before it are.
    """
    done = Imported()
    batch: list[Line] = []
    for line in lines:
        if len(batch) == BATCH or (batch and isinstance(line.content, Entry) != isinstance(batch[0].content, Entry)):
            done = await _import_batch(ledger, batch, done)
            yield done
            batch = []
        batch.append(line)
    yield await _import_batch(ledger, batch, done)


async def _import_batch(ledger: Ledger, batch: Sequence[Line], done: Imported) -> Imported:
    if batch and isinstance(batch[0].content, Entry):
        return await _restore_batch(ledger, batch, done)
    drafts = [line.content for line in batch if isinstance(line.content, Draft)]
    rejected = [(line.number, line.content) for line in batch if isinstance(line.content, Rejection)]
    if drafts or rejected:
        await ledger.record(drafts, [rejection for _, rejection in rejected])
    return done._replace(
        appended=done.appended + len(drafts),
        skipped=done.skipped + sum(line.content is None for line in batch),
        problems=done.problems + tuple((number, rejection.reason) for number, rejection in rejected),
    )


async def _restore_batch(ledger: Ledger, batch: Sequence[Line], done: Imported) -> Imported:
    lines = [(line.number, line.content) for line in batch if isinstance(line.content, Entry)]
    known = await _digests(ledger, lines[0][1].seq, lines[-1][1].seq)
    new = [(number, entry) for number, entry in lines if known.get(entry.seq) != entry.digest]
    refused = await ledger.restore([entry for _, entry in new])
    problems = tuple((new[position][0], reason) for position, reason in refused)
    raws = [strictjson.dumps(new[position][1].as_json()).encode() for position, _ in refused]
    if refused:
        rejections = [Rejection(raw, reason, None) for raw, (_, reason) in zip(raws, refused, strict=True)]
        await ledger.record([], rejections)
    return done._replace(
        restored=done.restored + len(new) - len(refused),
        present=done.present + len(lines) - len(new),
        problems=done.problems + problems,
    )


async def _digests(ledger: Ledger, first: int, last: int) -> dict[int, str]:
    head = (await ledger.head()).head_seq
    if not 1 <= first <= head or last < first:
        return {}
    entries = ledger.entries(since=first, until=min(last, head), limit=BATCH)
    return {entry.seq: entry.digest async for entry in entries}


async def export_lines(ledger: Ledger, *, until: int | None = None) -> AsyncIterator[bytes]:
    """The log, one line an entry."""
    async for entry in ledger.entries(until=until):
        yield strictjson.dumps(entry.as_json()).encode() + b"\n"
