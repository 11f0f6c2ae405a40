"""What a recorded event makes the ledger do: the re-outbox_items that wait in the outbox, as rows.

An effect is decided by the outcome and written in the event's transaction; a rebuild or a replay never comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, func, select, update

from podledger.core import strict_json
from podledger.core.entries import Draft, Outcome
from podledger.store.driver import insert_rows
from podledger.store.log import Head, row_checksum
from podledger.store.tables import outbox

OutboxStatus = Literal["pending", "sent", "dropped"]


class OutboxItem(NamedTuple):
    """One report that the ledger owes its parent, for the event `seq`; `payload` is its JSON.

    It is stamped when it is first sent, and keeps that stamp: a number is counted for what went out alone.
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
        """The same row with the row_checksum that its values have."""
        return self._replace(row_checksum=row_checksum(self[:-1]))


def relay_payload(draft: Draft, outcome: Outcome, owner: str) -> str | None:
    """What the owner tells its parent of an event: of a delegation that was applied, and of nothing else."""
    if outcome != "applied" or draft.content is None:
        return None
    event: dict[str, Any] = {
        "kind": "scope_sub_delegated",
        "parent_pod": owner,
        "sub_pod": draft.pod_name,
        "sub_socket": draft.content.socket_path,
        "scope": strict_json.loads(draft.content.scope),
    }
    return strict_json.dumps(event)


def append_outbox(connection: Connection, head: Head, owed: Sequence[tuple[int, str]], now_us: int) -> Head:
    """Put reports, each with the seq of its event, in the outbox; the head that counts them is not yet written."""
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
    connection: Connection, ledger: str, *, status: OutboxStatus | None = None, after: int = 0, limit: int = 1000
) -> list[OutboxItem]:
    """The outbox's rows after one number, in order."""
    query = select(outbox).where(outbox.c.ledger == ledger, outbox.c.number > after)
    if status is not None:
        query = query.where(outbox.c.status == status)
    return [OutboxItem(*row) for row in connection.execute(query.order_by(outbox.c.number).limit(limit))]


def count_outbox(connection: Connection, ledger: str, *, status: OutboxStatus) -> int:
    """Return how many outbox items of a ledger have `status`."""
    query = select(func.count()).select_from(outbox).where(outbox.c.ledger == ledger, outbox.c.status == status)
    return connection.execute(query).scalar_one()


def write_outbox_item(connection: Connection, item: OutboxItem) -> None:
    """Put a row back, sealed."""
    key = (outbox.c.ledger == item.ledger, outbox.c.number == item.number)
    connection.execute(update(outbox).where(*key), item.with_checksum()._asdict())
