"""The log: its head row, its entries and its rejected lines, written and read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from podledger.core import strict_json
from podledger.core.digest import NO_DIGEST, NO_PAYLOAD
from podledger.core.entries import Entry, Sender
from podledger.core.errors import InvalidMomentError, LedgerNotFoundError
from podledger.core.times import timestamp
from podledger.store.driver import PAGE, HotStatement, Positions, advancing, insert_rows
from podledger.store.tables import events, ledgers, rejected


class Head(NamedTuple):
    """The ledger's row: its settings, where its chains end, and how many rows its other tables hold.

    `rebuilds` counts the rebuilds, so that a cache of the projections knows when it is stale. `row_checksum` is a
    digest over the other values. Every row that may change has one, so that `verify` finds changes by other programs.
    """

    name: str
    created_us: int
    parent_socket: str | None
    mirror: str | None
    head_seq: int
    head_us: int
    head_digest: str
    rejected_count: int
    rejected_digest: str
    outbox_count: int
    consumer_count: int
    rebuilds: int
    row_checksum: str

    def with_checksum(self) -> Head:
        """Return the row with the checksum of its values."""
        return self._replace(row_checksum=row_checksum(self[:-1]))


class Rejection(NamedTuple):
    """A line that is not an event: its bytes, why it was rejected, and who sent it."""

    raw: bytes
    reason: str
    sender: Sender | None


class Rejected(NamedTuple):
    """A rejected line as it is stored; `digest` chains it to the one before it."""

    ledger: str
    number: int
    recorded_us: int
    raw: bytes
    reason: str
    pid: int | None
    uid: int | None
    gid: int | None
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Return the line as `rejected --json` prints it. Only `raw` replaces bytes that are not UTF-8."""
        sender = None if self.uid is None else {"pid": self.pid, "uid": self.uid, "gid": self.gid}
        return {
            "ledger": self.ledger,
            "number": self.number,
            "recorded_at": timestamp(self.recorded_us),
            "reason": self.reason,
            "raw": self.raw.decode(errors="replace"),
            "raw_hex": self.raw.hex(),
            "sender": sender,
            "digest": self.digest,
        }


def row_checksum(values: Sequence[Any]) -> str:
    """Return a digest over the values of a row."""
    return hashlib.sha256(strict_json.dumps(list(values)).encode()).hexdigest()


def rejected_digest(previous: str, row: Rejected) -> str:
    """Return the digest of a rejected line, which covers the digest of its bytes instead of the bytes."""
    return row_checksum((previous, *row[:3], hashlib.sha256(row.raw).hexdigest(), *row[4:8]))


def new_head(name: str, now_us: int) -> Head:
    """Return the row of an empty ledger."""
    return Head(name, now_us, None, None, 0, 0, NO_DIGEST, 0, NO_DIGEST, 0, 0, 0, "").with_checksum()


def read_head(connection: Connection, ledger: str) -> Head:
    """Return the ledger's row.

    Raises:
        LedgerNotFoundError: there is no such ledger.
    """
    rows = _HEAD.fetch(connection, {"ledger": ledger})
    if not rows:
        known = ", ".join(map(str, ledger_names(connection))) or "none"
        raise LedgerNotFoundError(f"there is no ledger {ledger!r} here; known: {known}", hint="choose with --ledger")
    return Head(*rows[0])


def ledger_names(connection: Connection) -> list[str]:
    """Return the names of the database's ledgers, sorted."""
    return list(connection.execute(select(ledgers.c.name).order_by(ledgers.c.name)).scalars().all())


def write_head(connection: Connection, head: Head) -> Head:
    """Write the row with its checksum, and return it."""
    head = head.with_checksum()
    _UPDATE_HEAD.run(connection, {**head._asdict(), "of_name": head.name})
    return head


_HEAD: Final = HotStatement(select(ledgers).where(ledgers.c.name == bindparam("ledger")))
_UPDATE_HEAD: Final = HotStatement(update(ledgers).where(ledgers.c.name == bindparam("of_name")), Head._fields[1:])


def filled_columns(entry: Entry) -> Positions:
    """Return the positions of an entry's values that are not null."""
    known = (entry.uid, entry.relation, entry.stamp_id, *entry[15:18])
    return _filled(*[value is not None for value in known])


@cache
def _filled(*known: bool) -> Positions:
    groups = (range(7, 10), (10,), range(11, 15), (15,), (16,), (17,))  # the sender, its relation, the stamp, …
    optional = zip(known, groups, strict=True)
    return (*range(7), *(position for filled, group in optional if filled for position in group), *range(18, 21))


def append_rejections(connection: Connection, head: Head, rejections: Sequence[Rejection], now_us: int) -> Head:
    """Append rejected lines; return the head that counts them, which the caller writes."""
    rows: list[Rejected] = []
    digest = head.rejected_digest
    for number, rejection in enumerate(rejections, head.rejected_count + 1):
        pid, uid, gid = rejection.sender[:3] if rejection.sender else (None, None, None)
        row = Rejected(head.name, number, now_us, rejection.raw, rejection.reason, pid, uid, gid, "")
        digest = rejected_digest(digest, row)
        rows.append(row._replace(digest=digest))
    insert_rows(connection, rejected, rows)
    return head._replace(rejected_count=head.rejected_count + len(rows), rejected_digest=digest)


class Selection(NamedTuple):
    """Which entries to read: after one seq, up to another, and of which pod, kind and outcome (None: any).

    `whole` leaves out the entries whose payload the database does not hold.
    """

    after: int = 0
    until: int | None = None
    pod: str | None = None
    kind: str | None = None
    outcome: str | None = None
    whole: bool = False


def read_page(connection: Connection, ledger: str, selection: Selection, limit: int = PAGE) -> list[Entry]:
    """Return the first entries of the selection by seq: at most `limit`, fewer if they are large, but at least one."""
    values = {name: value for name, value in selection._asdict().items() if value is not None and value is not False}
    rows = _page(frozenset(values)).page(connection, {**values, "ledger": ledger, "limit": limit}, limit)
    return [Entry._make(row) for row in advancing(rows, _SEQ, selection.after)]


@cache
def _page(given: frozenset[str]) -> HotStatement:
    """Return the query for a selection in which the fields `given` are set."""
    conditions = {
        "after": events.c.seq > bindparam("after"),
        "until": events.c.seq <= bindparam("until"),
        "pod": events.c.pod_name == bindparam("pod"),
        "kind": events.c.kind == bindparam("kind"),
        "outcome": events.c.outcome == bindparam("outcome"),
        "whole": events.c.payload != NO_PAYLOAD,
    }
    query = select(events).where(events.c.ledger == bindparam("ledger"))
    query = query.where(*(condition for name, condition in conditions.items() if name in given))
    return HotStatement(query.order_by(events.c.seq).limit(bindparam("limit")))


def read_all(connection: Connection, ledger: str, *, after: int = 0, until: int | None = None) -> Iterator[Entry]:
    """Yield every entry after one seq and up to another, with a page in memory at a time."""
    while page := read_page(connection, ledger, Selection(after, until)):
        yield from page
        after = page[-1].seq


def read_exactly(connection: Connection, ledger: str, seqs: Sequence[int]) -> dict[int, Entry]:
    """Return the entries of some seqs, as far as the log holds them, by seq."""
    rows = connection.execute(select(events).where(events.c.ledger == ledger, events.c.seq.in_(seqs)))
    return {row.seq: Entry(*row) for row in rows}


def read_rejected(connection: Connection, ledger: str, *, after: int = 0, limit: int = PAGE) -> list[Rejected]:
    """Return the rejected lines after one number: at most `limit`, but at least one, and fewer if they are large."""
    rows = _REJECTED.page(connection, {"ledger": ledger, "after": after, "limit": limit}, limit)
    return [Rejected._make(row) for row in advancing(rows, _NUMBER, after)]


_SEQ: Final = Entry._fields.index("seq")
_NUMBER: Final = Rejected._fields.index("number")
_REJECTED: Final = HotStatement(
    select(rejected)
    .where(rejected.c.ledger == bindparam("ledger"), rejected.c.number > bindparam("after"))
    .order_by(rejected.c.number)
    .limit(bindparam("limit"))
)


def seq_at(connection: Connection, ledger: str, at_us: int) -> int:
    """Return the last seq recorded up to a time, 0 if none: a binary search, since `recorded_us` never decreases."""
    low, high = 0, read_head(connection, ledger).head_seq
    while low < high:
        middle = (low + high + 1) // 2
        if recorded_us(connection, ledger, middle) <= at_us:
            low = middle
        else:
            high = middle - 1
    return low


def recorded_us(connection: Connection, ledger: str, seq: int) -> int:
    """Return when the ledger recorded an entry, in microseconds since 1970 (UTC)."""
    query = select(events.c.recorded_us).where(events.c.ledger == ledger, events.c.seq == seq)
    return int(connection.execute(query).scalar_one())


def check_within(seq: int, head: int) -> int:
    """Return `seq` if it is 0 or in a log that ends at `head`.

    Raises:
        InvalidMomentError: the log does not reach that far.
    """
    if not 0 <= seq <= head:
        holds = f"holds 1 to {head}" if head else "is empty"
        raise InvalidMomentError(f"seq {seq} is not in the log, which {holds}", hint=f"give 0 to {head}")
    return seq


def make_ledger(connection: Connection, name: str, now_us: int) -> Head:
    """Create the ledger unless it exists; return its row."""
    if name not in ledger_names(connection):
        insert_rows(connection, ledgers, [new_head(name, now_us)])
    return read_head(connection, name)


def configure(connection: Connection, ledger: str, parent_socket: str | None, mirror: str | None) -> Head:
    """Set the owner's parent and the mirror; None keeps a setting, and an empty text clears it."""
    head = read_head(connection, ledger)
    if parent_socket is not None:
        head = head._replace(parent_socket=parent_socket or None)
    if mirror is not None:
        head = head._replace(mirror=mirror or None)
    return write_head(connection, head)
