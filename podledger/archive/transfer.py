"""Import and export: lines of a file into a ledger, and a ledger's log into lines.

The lines of an export are the objects of `events --json`. Imported into an empty ledger of the same name, they keep
their seq, time and digest, byte for byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, get_args

from podledger.core import protocol, strict_json
from podledger.core.delegations import speaker_of
from podledger.core.entries import Draft, Entry, Outcome, Relation, draft
from podledger.core.errors import InvalidEventError, ProtocolError
from podledger.core.events import EVIDENCE, Evidence, event_from, parse_event
from podledger.core.protocol import Report
from podledger.core.times import microseconds
from podledger.host.facts import with_absolute_paths
from podledger.ledger import Ledger
from podledger.store import log
from podledger.store.coverage import check_whole
from podledger.store.log import Rejection

MAX_EVENT_BYTES: Final = 16 << 20
"""The size of the largest event that an import accepts."""

MAX_LINE_BYTES: Final = 4 * MAX_EVENT_BYTES
"""The size of the longest line: an exported entry holds its payload twice, once with every quote escaped."""

BATCH: Final = 2_000
BATCH_BYTES: Final = 16 << 20
"""How many lines, or bytes of lines, go into one transaction."""

KEPT_BYTES: Final = 64 << 10
"""How much of an overlong line is kept as a rejected line."""


class InputLine(NamedTuple):
    """A line of a file: its number from 1, its bytes, and its content (None: a method that is no event)."""

    number: int
    raw: bytes
    content: Draft | Entry | Rejection | None

    @property
    def entry(self) -> Entry | None:
        """The exported entry on the line, or None."""
        return self.content if isinstance(self.content, Entry) else None


class Imported(NamedTuple):
    """The counts of an import: appended events, restored entries, entries already present, lines that are no events.

    `problems` holds the number of each rejected line, with the reason.
    """

    appended: int = 0
    restored: int = 0
    present: int = 0
    skipped: int = 0
    problems: tuple[tuple[int, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the result as `import --json` prints it."""
        problems = [{"line": number, "reason": reason} for number, reason in self.problems]
        return self._asdict() | {"rejected": len(problems), "problems": problems}


def read_lines(lines: Iterable[bytes], owner: str) -> Iterator[InputLine]:
    """Yield the lines of a file with their content. Blank lines are skipped; an overlong line is cut and rejected."""
    for number, line in enumerate(lines, 1):
        raw = line.strip(b"\r\n \t")
        if raw and not raw.isspace():
            yield InputLine(number, raw, read_line(raw, owner))


def read_line(line: bytes, owner: str) -> Draft | Entry | Rejection | None:
    """Return the content of a line: an event (on the wire or bare), an exported entry, or a rejected line."""
    if len(line) > MAX_LINE_BYTES:
        return _too_long(line, MAX_LINE_BYTES)
    content: Draft | Entry | Rejection | None
    try:
        content = _read(line, owner)
    except (ProtocolError, InvalidEventError) as error:
        content = Rejection(line, error.message, None)
    if len(line) > MAX_EVENT_BYTES and not isinstance(content, Entry):
        return _too_long(line, MAX_EVENT_BYTES)
    return content


def _too_long(line: bytes, limit: int) -> Rejection:
    return Rejection(line[:KEPT_BYTES], f"longer than {limit} bytes; its start is kept", None)


def _read(line: bytes, owner: str) -> Draft | Entry | None:
    if line.startswith(b'{"method":'):
        return _read_wire(line, owner)
    text = protocol.decode(line)
    fields = strict_json.loads(text, max_depth=strict_json.MAX_DEPTH + 1)  # an entry nests its event one level deeper
    if not isinstance(fields, dict):
        raise ProtocolError("not a JSON object")
    if "method" in fields:
        return _read_wire(line, owner)
    if "digest" in fields and "seq" in fields:
        return entry_from(fields)
    if "kind" in fields:
        strict_json.checked(text, fields)
        event = event_from(fields)
        absolute = with_absolute_paths(event)
        return draft(absolute, owner, payload=text.strip() if absolute is event else None)
    raise ProtocolError("neither a method, nor an event, nor an exported entry")


def _read_wire(line: bytes, owner: str) -> Draft | None:
    read = protocol.parse_line(line)
    return draft(read.event, owner, payload=read.payload) if isinstance(read, Report) else None


def entry_from(fields: dict[str, Any]) -> Entry:
    """Return the entry that an object of `events --json` states. Its digest is checked only when it is restored.

    Raises:
        ProtocolError: it states none.
    """
    payload = fields.get("payload")
    if payload is None:
        payload = strict_json.dumps(fields.get("event"))
    elif not isinstance(payload, str) or fields.get("event", ...) not in (..., strict_json.loads(payload)):
        raise ProtocolError("event and payload differ")
    event = parse_event(payload)
    stamp = event.stamp
    sender = fields.get("sender") or {}
    if not isinstance(sender, dict):
        raise ProtocolError("sender is not an object")
    return Entry(
        ledger=_text(fields, "ledger"),
        seq=_integer(fields, "seq"),
        recorded_us=_time(fields, "recorded_at"),
        evidence=_word(fields, "evidence", Evidence),
        kind=_word(fields, "kind", None),
        pod_name=_text(fields, "pod_name"),
        payload=payload,
        pid=None if sender.get("pid") is None else _integer(sender, "pid"),
        uid=_integer(sender, "uid") if sender else None,
        gid=_integer(sender, "gid") if sender else None,
        relation=_word(sender, "relation", Relation) if sender.get("relation") is not None else None,
        stamp_id=stamp.id if stamp else None,
        source=stamp.source if stamp else None,
        sequence=stamp.sequence if stamp else None,
        sent_us=stamp.sent_us if stamp else None,
        subject=stamp.subject if stamp else None,
        speaker=speaker_of(event),
        relayed_kind=event.relay.kind if event.relay else None,
        outcome=_word(fields, "outcome", Outcome),
        rules=_integer(fields, "rules"),
        digest=_text(fields, "digest"),
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} is missing, or is not a string")
    return value


def _integer(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
        raise ProtocolError(f"{name} is missing, or is not an integer")
    return value


def _word(fields: dict[str, Any], name: str, words: Any) -> Any:
    value = _text(fields, name)
    if value not in (get_args(words) if words else EVIDENCE):
        raise ProtocolError(f"{name} {value[:40]!r} is unknown")
    return value


def _time(fields: dict[str, Any], name: str) -> int:
    try:
        return microseconds(datetime.fromisoformat(_text(fields, name)))
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"{name} is not a time with an offset") from error


async def import_lines(ledger: Ledger, lines: Iterable[InputLine]) -> AsyncIterator[Imported]:
    """Import lines into the ledger, a batch in each transaction; yield the counts so far after each batch.

    Raises:
        ReadOnlyError: the database is for reading only.
        StorageError: a batch was not committed; the batches before it were.
    """
    ledger.database.check_writable()
    done = Imported()
    batch: list[InputLine] = []
    size, newest = 0, None
    for line in lines:
        entry = line.entry
        is_full = len(batch) == BATCH or size > BATCH_BYTES
        if is_full or (entry is not newest and batch and not _go_together(newest, entry)):
            done = await _import_batch(ledger, batch, done)
            yield done
            batch, size = [], 0
        batch.append(line)
        size += len(line.raw)
        newest = entry
    yield await _import_batch(ledger, batch, done)


def _go_together(one: Entry | None, other: Entry | None) -> bool:
    """Return whether two lines may be in one batch: only if both are entries, in the order of the log."""
    return one is not None and other is not None and one.seq < other.seq


async def _import_batch(ledger: Ledger, batch: Sequence[InputLine], done: Imported) -> Imported:
    if batch and batch[0].entry:
        return await _restore_batch(ledger, [(line, line.entry) for line in batch if line.entry], done)
    drafts = [line.content for line in batch if isinstance(line.content, Draft)]
    rejected = [(line.number, line.content) for line in batch if isinstance(line.content, Rejection)]
    if drafts or rejected:
        await ledger.commits.append(drafts, [rejection for _, rejection in rejected])
    return done._replace(
        appended=done.appended + len(drafts),
        skipped=done.skipped + sum(line.content is None for line in batch),
        problems=done.problems + tuple((number, rejection.reason) for number, rejection in rejected),
    )


async def _restore_batch(ledger: Ledger, batch: Sequence[tuple[InputLine, Entry]], done: Imported) -> Imported:
    """Restore the entries that the log does not hold. An entry that it holds must be identical."""
    known = await ledger.read(partial(log.read_exactly, ledger=ledger.name, seqs=[entry.seq for _, entry in batch]))
    new = [(line, entry) for line, entry in batch if known.get(entry.seq) != entry]
    refused = await ledger.commits.restore([entry for _, entry in new])
    reasons = [(new[position][0], _explained(reason, new[position][1], known)) for position, reason in refused]
    if reasons:
        await ledger.commits.append([], [Rejection(line.raw, reason, None) for line, reason in reasons])
    return done._replace(
        restored=done.restored + len(new) - len(refused),
        present=done.present + len(batch) - len(new),
        problems=done.problems + tuple((line.number, reason) for line, reason in reasons),
    )


def _explained(reason: str, entry: Entry, known: Mapping[int, Entry]) -> str:
    """Return the reason why an entry was refused; if the log holds another one at its seq, how the two differ."""
    if entry.seq not in known or entry.ledger != known[entry.seq].ledger:
        return reason
    return f"the log holds another entry {entry.seq}: {', '.join(_differing(entry, known[entry.seq]))} differ"


def _differing(one: Entry, other: Entry) -> list[str]:
    return [name for name, a, b in zip(Entry._fields, one, other, strict=True) if a != b]


async def export_lines(ledger: Ledger, *, until: int | None = None) -> AsyncIterator[bytes]:
    """Yield the log as lines, one for each entry.

    Raises:
        UsageError: the database holds no whole log.
    """
    check_whole(ledger.database.path, ledger.database.coverage)
    async for entry in ledger.entries(until=until):
        yield strict_json.dumps(entry.as_json()).encode() + b"\n"
