"""Whether the tables that podledger reads are its own, before it reads the first row.

A view or a virtual table in the place of a table may compute rows for ever. The catalogue alone shows that, so
nothing else of a database is read before its tables' text is compared with podledger's.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from podledger.core.errors import DamagedError
from podledger.store.sqlite.files import named_objects
from podledger.store.tables import metadata

revisions: Final = MetaData()
"""Alembic's own table."""

Table(
    "alembic_version",
    revisions,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def check_tables(connection: Connection, place: str, tables: MetaData = metadata) -> None:
    """Check that the tables of podledger that the database has are podledger's own; some may be missing.

    `place` names the database in the error.

    Raises:
        DamagedError: one is a view, a virtual table, or a table with other columns.
    """
    for name in altered_tables(connection, tables):
        raise DamagedError(
            f"{place}: the table {name} is not podledger's, so nothing is read from it",
            hint="ask who made the file; restore a backup, or take another copy of it",
        )


def altered_tables(connection: Connection, tables: MetaData = metadata) -> Iterator[str]:
    """Yield the names of the tables that the database has with another definition than podledger's."""
    expected = _definitions(tables)
    for kind, name, sql in named_objects(connection, list(expected)):
        if (kind, _words(sql)) != ("table", expected[name]):
            yield name


@cache
def _definitions(tables: MetaData) -> dict[str, str]:
    return {name: _words(str(CreateTable(each).compile(dialect=_DIALECT))) for name, each in tables.tables.items()}


def _words(sql: str | None) -> str:
    """Return a definition without its line breaks: the migrations break their lines elsewhere."""
    return " ".join((sql or "").split())


_DIALECT: Final = sqlite.dialect()
