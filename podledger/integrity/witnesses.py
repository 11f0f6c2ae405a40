"""Witnesses: compare each child's log with the digests that its parents' logs received in relays.

A relay states where the log of the owner that sent it stood. So a parent's log shows that a child's log was rewritten
or cut after the relay. The relay is a claim: any process that can write to the parent's socket can also send a false
one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select

from podledger.core.digest import NO_PAYLOAD
from podledger.core.errors import ProtocolError
from podledger.core.events import parse_event
from podledger.core.problem import Problem
from podledger.core.relays import Relay
from podledger.core.text import escape
from podledger.integrity.notes import stored_digest
from podledger.integrity.scan import UNREADABLE
from podledger.store.driver import HotStatement
from podledger.store.log import Head
from podledger.store.tables import events

MAX_ABSENT: Final = 1_000
"""The most names of absent ledgers that a result lists: relays can claim any number of names."""


class Copy(NamedTuple):
    """A ledger in some database: the database's name for messages, a connection to it, and the ledger's row."""

    place: str
    connection: Connection
    head: Head


class Misfit(NamedTuple):
    """The first entry of a ledger that is not as another ledger witnessed it.

    The entry `seq` of `ledger` is not there, if `missing`, or has another digest. `witness` names the other ledger;
    its entry `witnessed_at` states the digest.
    """

    ledger: str
    seq: int
    missing: bool
    witness: str
    witnessed_at: int

    def __str__(self) -> str:
        ledger, witness = escape(self.ledger, 255), escape(self.witness, 255)
        if self.missing:
            return f"{ledger}'s log is shorter: {witness} witnessed its seq {self.seq} at seq {self.witnessed_at}"
        return f"{ledger}'s log differs at seq {self.seq} from what {witness} witnessed at seq {self.witnessed_at}"


class Witnesses(NamedTuple):
    """How many relays were compared, what does not fit, and the ledgers that were named but not given, by name."""

    compared: int
    misfits: tuple[Misfit, ...]
    absent: tuple[str, ...]


def compare_witnesses(parents: Sequence[Copy], children: Sequence[Copy]) -> Witnesses:
    """Compare every relay in the logs of `parents` with the ledger that it names among `children`.

    If several ledgers have that name, the relay fits if one of them holds the entry. The snapshots of `children` must
    be no older than those of `parents`, or an entry that was written in between would seem to be missing.
    """
    compared, absent, found = 0, set[str](), list[Misfit]()
    for parent in parents:
        first: dict[str, Misfit] = {}
        for at, relay in _relays(parent):
            of_name = [child for child in children if _is_other(child, parent, relay.ledger)]
            if not of_name and len(absent) < MAX_ABSENT:
                absent.add(relay.ledger)
            compared += bool(of_name)
            misfit = _misfit(parent.head.name, at, relay, of_name)
            if misfit and (relay.ledger not in first or relay.seq < first[relay.ledger].seq):
                first[relay.ledger] = misfit
        found += first.values()
    return Witnesses(compared, tuple(sorted(found)), tuple(sorted(absent)))


def witness_problems(witnesses: Witnesses) -> Iterator[Problem]:
    """Yield each misfit as a problem of the entry that does not fit."""
    for misfit in witnesses.misfits:
        yield Problem("witness", misfit.seq, str(misfit))


def _is_other(child: Copy, parent: Copy, name: str) -> bool:
    """Return whether a ledger has this name and is not the one that states it."""
    return child.head.name == name and (child.place, name) != (parent.place, parent.head.name)


def _misfit(witness: str, at: int, relay: Relay, children: Sequence[Copy]) -> Misfit | None:
    digests = {stored_digest(child.connection, relay.ledger, relay.seq) for child in children}
    if not children or relay.digest in digests:
        return None
    return Misfit(relay.ledger, relay.seq, digests == {None}, witness, at)


def _relays(parent: Copy) -> Iterator[tuple[int, Relay]]:
    """Yield the relays in a log with their seq, a page in memory at a time."""
    for seq, payload in _RELAYED.pages(parent.connection, {"ledger": parent.head.name}):
        try:
            relay = parse_event(payload).relay if payload != NO_PAYLOAD else None
        except (ProtocolError, *UNREADABLE):  # an altered entry, which `verify` reports
            continue
        if relay is not None:
            yield seq, relay


_RELAYED: Final = HotStatement(
    select(events.c.seq, events.c.payload)
    .where(events.c.ledger == bindparam("ledger"), events.c.relayed_kind.is_not(None))
    .order_by(events.c.seq)
)
