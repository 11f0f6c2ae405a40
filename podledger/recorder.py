"""One transaction of the log: check the head, fold and insert the batch, write what changed, move the head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from podledger import rules
from podledger.database import insert_rows
from podledger.errors import ChainError
from podledger.events import Draft, Entry, Sender, chain_digest
from podledger.log import Head, Rejection, append_rejections, read_head, write_head
from podledger.outbox import Effect, append_effects
from podledger.projections import StateCache, TenureKey, save
from podledger.rules import Fact, State, Tenure
from podledger.stamps import Stamper
from podledger.tables import events


class Recorded(NamedTuple):
    """What a batch left: its entries, the head after it, and whether the registry changed."""

    entries: list[Entry]
    head: Head
    registry_changed: bool


class Batch:
    """The fold of one batch over the states that the projection holds; nothing of it is seen until it is kept."""

    def __init__(self, known: dict[str, State], head: Head) -> None:
        self.known = known
        self.head = head
        self.states: dict[str, State] = {}
        self.changed: dict[TenureKey, Tenure] = {}
