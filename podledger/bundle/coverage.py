"""The coverage of a bundle: its scope by its own tables, and the checks that only a bundle needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Final

from sqlalchemy import Connection, MetaData, and_, func, select

from podledger.bundle.request import gaps_in
from podledger.bundle.scope import BundleRow, BundleScope, texts_digest
from podledger.bundle.tables import BUNDLE_ID, bundle, bundle_gaps, bundle_texts, metadata, withheld
from podledger.core.digest import NO_PAYLOAD
from podledger.core.entries import Entry
from podledger.core.errors import DamagedError
from podledger.core.problem import Problem
from podledger.core.text import escape
from podledger.queries.gaps import Gap
from podledger.store.own_tables import check_tables
from podledger.store.tables import events


@dataclass(frozen=True)
class BundleCoverage:
    """The coverage of a bundle, from the row that states its scope."""

    row: BundleRow
    scope: BundleScope
    is_whole: bool = field(default=False, init=False)
    application_id: int = field(default=BUNDLE_ID, init=False)
    tables: MetaData = field(default=metadata, init=False, repr=False)

    def describe(self) -> str:
        """Return the kind of database and its scope in a few words."""
        return f"a bundle of {self.scope.describe()}"

    def covers(self, pod_name: str) -> bool:
        """Return whether the bundle was made to show this pod."""
        return self.scope.covers(pod_name)

    def projects(self, pod_name: str) -> bool:
        """Return whether the bundle's projections hold this pod."""
        return self.scope.projects(pod_name)

    def payload_digests(self, connection: Connection, page: Sequence[Entry]) -> Mapping[int, str]:
        """Return the digests of the withheld payloads, by seq, for a page of the log."""
        query = select(withheld.c.seq, withheld.c.payload_digest).where(
            withheld.c.ledger == self.row.ledger, withheld.c.seq.between(page[0].seq, page[-1].seq)
        )
        return {row.seq: row.payload_digest for row in connection.execute(query).all()}

    def problems(self, connection: Connection) -> Iterator[Problem]:
        """Yield where the bundle's own tables and its log contradict each other."""
        if self.row.with_checksum() != self.row:
            yield _problem("the row that states its scope was changed in place")
        yield from self._payload_problems(connection)
        yield from self._withheld_problems(connection)
        texts = [(name, content) for name, content in connection.execute(select(bundle_texts).order_by("name")).all()]
        if texts_digest(texts) != self.row.texts_digest:
            yield _problem("one of its texts was changed in place")
        yield from _program_problems(dict(texts))
        stored = {Gap(*gap[1:]) for gap in connection.execute(select(bundle_gaps)).all()}
        if stored != set(gaps_in(connection, self.scope)):
            yield _problem("the gaps that it states are not those of its log")

    def _payload_problems(self, connection: Connection) -> Iterator[Problem]:
        """Yield the entries whose payload is withheld, or is there, against the scope."""
        key = and_(withheld.c.ledger == events.c.ledger, withheld.c.seq == events.c.seq)
        query = (
            select(
                events.c.seq,
                events.c.kind,
                events.c.pod_name,
                events.c.payload == NO_PAYLOAD,
                withheld.c.payload_digest.is_not(None),
            )
            .select_from(events.outerjoin(withheld, key))
            .where(events.c.ledger == self.row.ledger)
            .order_by(events.c.seq)
        )
        for seq, kind, pod_name, is_blank, has_digest in connection.execute(query):
            if not self.scope.shows(seq, kind, pod_name):
                if not (is_blank and has_digest):
                    yield _problem("it is outside the scope, but its payload is there", seq)
            elif is_blank or has_digest:
                yield _problem("it is in the scope, but its payload is withheld", seq)

    def _withheld_problems(self, connection: Connection) -> Iterator[Problem]:
        """Yield the tables that state something about an entry that the bundle does not hold."""
        key = and_(withheld.c.ledger == events.c.ledger, withheld.c.seq == events.c.seq)
        query = select(func.count()).select_from(withheld.outerjoin(events, key)).where(events.c.seq.is_(None))
        if count := connection.execute(query).scalar_one():
            yield _problem(f"withheld has {count} rows for entries that it does not hold")
        for table in (withheld, bundle_gaps):
            if connection.execute(select(table.c.ledger).where(table.c.ledger != self.row.ledger)).first():
                yield _problem(f"{table.name} has rows of another ledger")


def verifier() -> str:
    """Return the program that verifies a ledger or a bundle without podledger."""
    return resources.files("podledger.bundle").joinpath("verifier.txt").read_text()


def _program_problems(texts: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the texts that could be programs, unless one is the verifier of this package."""
    for name, content in texts.items():
        if name != "README" and (name, content) != ("verifier.py", verifier()):
            yield _problem(f"its text {escape(name, 60)!r} is not podledger's: do not run it")


def _problem(detail: str, seq: int | None = None) -> Problem:
    return Problem("bundle", seq, detail)


def read_bundle(connection: Connection) -> BundleCoverage:
    """Return the coverage that a bundle states.

    Raises:
        DamagedError: it does not state its scope, or one of its tables is not podledger's.
    """
    check_tables(connection, "the bundle", metadata)
    rows = connection.execute(select(bundle).limit(2)).all()
    try:
        row = BundleRow(*rows[0])
        return BundleCoverage(row, row.scope())
    except (IndexError, ValueError, TypeError) as error:
        raise DamagedError("the bundle does not state its scope", hint=_TAKE_ANOTHER) from error


_TAKE_ANOTHER: Final = "take another copy of it"
