"""What stamped senders sent and this ledger never got: the numbers missing from each sender's sequence."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from podledger.queries.registry import Moment, resolve


class Gap(NamedTuple):
    """A run of missing sequence numbers, `first` to `last`, of one sender.

    `pod_name` is the sender's where one of its events says so, else None. `after_seq` and `before_seq` are the log's
    entries of the sender's events on either side; `after_seq` is None where its first ones are missing.
    """

    source: str
    pod_name: str | None
    first: int
    last: int
    after_seq: int | None
    before_seq: int

    def as_json(self) -> dict[str, Any]:
        """The gap as `gaps --json` prints it."""
        return self._asdict()


class Missing(NamedTuple):
    """How many reports are missing, and of how many senders."""

    reports: int
    senders: int


_GAPS: Final = """
WITH heard AS (
    SELECT source, sequence, min(seq) AS seq, max(CASE WHEN subject = source THEN pod_name END) AS pod_name
    FROM events WHERE ledger = :ledger AND source IS NOT NULL AND seq <= :until
    GROUP BY source, sequence
), ordered AS (
    SELECT source, sequence, seq,
        max(pod_name) OVER (PARTITION BY source) AS pod_name,
        lag(sequence, 1, 0) OVER (PARTITION BY source ORDER BY sequence) AS before,
        lag(seq) OVER (PARTITION BY source ORDER BY sequence) AS after_seq
    FROM heard
)
SELECT source, pod_name, before + 1, sequence - 1, after_seq, seq
FROM ordered WHERE sequence > before + 1 ORDER BY seq, source
"""


def gaps_until(connection: Connection, ledger: str, until: int) -> list[Gap]:
    """The gaps in what had arrived up to the seq `until`.

    A sender's last events are missed only where a later one, such as its `shut_down`, bears a higher number.
    """
    return [Gap(*row) for row in connection.execute(text(_GAPS), {"ledger": ledger, "until": until})]


_MISSING: Final = """
SELECT CAST(total(missing) AS INTEGER), count(*) FROM (
    SELECT max(sequence) - count(DISTINCT sequence) AS missing
    FROM events WHERE ledger = :ledger AND source IS NOT NULL AND seq <= :until
    GROUP BY source
) WHERE missing > 0
"""


def missing_until(connection: Connection, ledger: str, until: int) -> Missing:
    """How much is missing in what had arrived up to the seq `until`: the gaps, only counted."""
    return Missing(*connection.execute(text(_MISSING), {"ledger": ledger, "until": until}).one())


def gaps_at(connection: Connection, ledger: str, at: Moment) -> list[Gap]:
    """The gaps at a moment."""
    return gaps_until(connection, ledger, resolve(connection, ledger, at))


def missing_at(connection: Connection, ledger: str, at: Moment) -> Missing:
    """How much was missing at a moment."""
    return missing_until(connection, ledger, resolve(connection, ledger, at))
