"""What `verify` looks at in a bundle beside what it looks at in any ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from podledger.bundle.scope import BundleRow, BundleScope, known_gaps
from podledger.bundle.write import texts_digest
from podledger.core.digest import WITHHELD
from podledger.core.entries import Entry
from podledger.core.errors import DamagedError
from podledger.core.problem import Problem
from podledger.queries.gaps import Gap
from podledger.store.sqlite.files import BUNDLE_ID, application_id_of
from podledger.store.tables import bundle, bundle_gaps, bundle_texts, withheld


class Bundle(NamedTuple):
    """The rows of a bundle that say what is in it, and what they say."""

    row: BundleRow
    what: BundleScope


def read_bundle(connection: Connection) -> Bundle | None:
    """What the bundle holds; None if the file is none.

    Raises:
        DamagedError: the file says that it is one, and does not say of what.
    """
    if application_id_of(connection) != BUNDLE_ID:
        return None
    rows = connection.execute(select(bundle)).all()
    try:
        row = BundleRow(*rows[0])
        return Bundle(row, row.slice())
    except (IndexError, ValueError, TypeError) as error:
        raise DamagedError("the bundle does not say what is in it", hint="take another copy of it") from error


def withheld_digests(connection: Connection, ledger: str, page: Sequence[Entry]) -> dict[int, str]:
    """The digests of the payloads that are not there, by seq, for a page of a bundle's log."""
    query = select(withheld.c.seq, withheld.c.payload_digest).where(
        withheld.c.ledger == ledger, withheld.c.seq >= page[0].seq, withheld.c.seq <= page[-1].seq
    )
    return {row.seq: row.payload_digest for row in connection.execute(query)}


def entry_problems(what: BundleScope, entry: Entry, digest: str | None) -> Iterator[Problem]:
    """What is wrong with how the bundle shows, or withholds, an entry; `digest` is that of a withheld payload."""
    if what.shows(entry):
        if entry.payload == WITHHELD or digest is not None:
            yield Problem("bundle", entry.seq, "it is in the slice, and yet its payload is withheld")
    elif entry.payload != WITHHELD or digest is None:
        yield Problem("bundle", entry.seq, "it is not in the slice, and yet its payload is there")


def bundle_problems(connection: Connection, found: Bundle, counted: int) -> Iterator[Problem]:
    """What is wrong with the tables that only a bundle has; `counted` payloads are withheld."""
    row, what = found
    if row.with_checksum() != row:
        yield Problem("bundle", None, "the row that says what is in the bundle was changed in place")
    if connection.execute(select(func.count()).select_from(withheld)).scalar_one() != counted:
        yield Problem("bundle", None, f"{counted} payloads are withheld, and the table says otherwise")
    for table in (withheld, bundle_gaps):
        if connection.execute(select(table.c.ledger).where(table.c.ledger != row.ledger)).first():
            yield Problem("bundle", None, f"{table.name} has rows of another ledger")
    texts = [(name, content) for name, content in connection.execute(select(bundle_texts).order_by("name"))]
    if texts_digest(texts) != row.texts_digest:
        yield Problem("bundle", None, "one of its texts was changed in place")
    stored = {Gap(*gap[1:]) for gap in connection.execute(select(bundle_gaps))}
    if stored != set(known_gaps(connection, what)):
        yield Problem("bundle", None, "the gaps that it tells are not those of its log")


def describe(connection: Connection) -> str:
    """What the bundle holds, in one line for a person."""
    found = read_bundle(connection)
    if found is None:
        return "no bundle"
    ledger, pod, first, last, pods, _ = found.what
    below = "" if pods is None or len(pods) == 1 else f" and {len(pods) - 1} below it"
    of_whom = "all pods" if pods is None else f"the pod {pod!r}{below}; of others only what theirs rests on"
    return f"a bundle of the ledger {ledger!r}, seq {first} to {last}, of {of_whom}"
