"""The outbox as rows: the reports that a ledger owes its parent.

The outcome of an event decides whether the ledger owes its parent a report, which the event's transaction writes.
A rebuild or a replay writes none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, func, literal_column, select, update

from podledger.core import strict_json
from podledger.core.errors import UsageError
from podledger.store.driver import insert_rows
from podledger.store.log import Head, row_checksum
from podledger.store.tables import outbox

OutboxStatus = Literal["pending", "sent", "skipped", "refused", "discarded"]
"""Of an item: the parent has not taken it yet; it was sent, and acknowledged if the parent offers that; it was not
sent, because the parent takes no relayed ends; the parent refused it; a person discarded it."""


class OutboxItem(NamedTuple):
    """One report that the ledger owes its parent for the event `seq`; `payload` is its JSON.

    It gets its stamp when it is first sent, and keeps it, so that only sent reports have a sequence number.
    """

    ledger: str
    number: int
    seq: int
    socket: str
    payload: str
    created_us: int
    status: OutboxStatus
    attempts: int
    last_error: str | None
    settled_us: int | None
    row_checksum: str

    def with_checksum(self) -> OutboxItem:
        """Return the row with the checksum of its values."""
        return self._replace(row_checksum=row_checksum(self[:-1]))


def append_outbox(connection: Connection, head: Head, owed: Sequence[tuple[int, str]], now_us: int) -> Head:
    """Add reports, each with the seq of its event; return the head that counts them, not yet written."""
    if not owed or head.parent_socket is None:
        return head
    rows = [
        OutboxItem(
            head.name, number, seq, head.parent_socket, payload, now_us, "pending", 0, None, None, ""
        ).with_checksum()
        for number, (seq, payload) in enumerate(owed, head.outbox_count + 1)
    ]
    insert_rows(connection, outbox, rows)
    return head._replace(outbox_count=head.outbox_count + len(rows))


def read_outbox(
    connection: Connection,
    ledger: str,
    *,
    status: OutboxStatus | None = None,
    socket: str | None = None,
    after: int = 0,
    limit: int = 1000,
) -> list[OutboxItem]:
    """Return the outbox's rows after one number, in order, at most `limit`."""
    query = select(outbox).where(outbox.c.ledger == ledger, outbox.c.number > after)
    if status is not None:
        query = query.where(outbox.c.status == literal_column(f"'{status}'"))  # so that the partial index applies
    if socket is not None:
        query = query.where(outbox.c.socket == socket)
    return [OutboxItem(*row) for row in connection.execute(query.order_by(outbox.c.number).limit(limit))]


def pending_sockets(connection: Connection, ledger: str) -> list[str]:
    """Return the sockets of the pending items, that of the oldest item first."""
    query = select(outbox.c.socket).where(outbox.c.ledger == ledger, outbox.c.status == literal_column("'pending'"))
    return list(connection.execute(query.group_by(outbox.c.socket).order_by(func.min(outbox.c.number))).scalars())


def discard_items(connection: Connection, ledger: str, numbers: Sequence[int], *, now_us: int) -> None:
    """Discard items that are pending or refused.

    Raises:
        UsageError: one of them is neither. None is discarded.
    """
    for number in numbers:
        found = read_outbox(connection, ledger, after=number - 1, limit=1)
        if not found or found[0].number != number or found[0].status not in ("pending", "refused"):
            raise UsageError(f"no report {number} waits in the outbox", hint="list them with `podledger outbox`")
        write_outbox_item(connection, found[0]._replace(status="discarded", settled_us=now_us))


def count_outbox(connection: Connection, ledger: str, *, status: OutboxStatus) -> int:
    """Return how many outbox items of a ledger have `status`."""
    query = select(func.count()).select_from(outbox).where(outbox.c.ledger == ledger, outbox.c.status == status)
    return connection.execute(query).scalar_one()


def keep_attempts(connection: Connection, items: Sequence[OutboxItem]) -> list[OutboxItem]:
    """Store the stamps or the last attempts of items, and return them as they are stored."""
    return [_keep_attempt(connection, item) for item in items]


def _keep_attempt(connection: Connection, item: OutboxItem) -> OutboxItem:
    """Another process may send the same item: an item that is settled stays so, and a stamp is never replaced."""
    [stored] = read_outbox(connection, item.ledger, after=item.number - 1, limit=1)
    if stored.status != "pending":
        return stored
    if is_stamped(strict_json.loads(stored.payload)):
        item = item._replace(payload=stored.payload)
    write_outbox_item(connection, item)
    return item


def is_stamped(report: dict[str, Any]) -> bool:
    """Return whether a report has its whole stamp; before it is sent for the first time, it has a subject at most."""
    return "id" in report.get("stamp", {})


def write_outbox_item(connection: Connection, item: OutboxItem) -> None:
    """Write a row back with the checksum of its values."""
    key = (outbox.c.ledger == item.ledger, outbox.c.number == item.number)
    connection.execute(update(outbox).where(*key), item.with_checksum()._asdict())
