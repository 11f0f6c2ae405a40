"""The coverage of a file. This module alone knows which kinds of database there are."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from podledger.bundle.coverage import read_bundle
from podledger.bundle.tables import BUNDLE_ID
from podledger.store.connections import read_only
from podledger.store.coverage import WHOLE_LOG, Coverage
from podledger.store.sqlite.files import application_id, application_id_of


def coverage_of(path: Path) -> Coverage:
    """Return how much of its ledgers' logs the database at `path` holds. A file that cannot be read counts as whole.

    Raises:
        DamagedError: it is a bundle that does not state its scope.
    """
    if application_id(path) != BUNDLE_ID:
        return WHOLE_LOG
    with read_only(path) as connection:
        return read_bundle(connection)


def read_coverage(connection: Connection) -> Coverage:
    """Return how much of its ledgers' logs the connection's database holds.

    Raises:
        DamagedError: it is a bundle that does not state its scope.
    """
    return read_bundle(connection) if application_id_of(connection) == BUNDLE_ID else WHOLE_LOG
