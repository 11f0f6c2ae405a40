"""Whether the tables, indexes, triggers and views of a file are those that the migrations create."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from sqlalchemy import Connection, MetaData, create_engine
from sqlalchemy.pool import StaticPool

from podledger.core.problem import Problem
from podledger.core.text import escape
from podledger.store.coverage import Coverage
from podledger.store.schema import upgrade_to
from podledger.store.sqlite.files import schema_of


def schema_problems(connection: Connection, coverage: Coverage) -> Iterator[Problem]:
    """Yield the differences from the schema that the migrations create."""
    actual, expected = schema_of(connection), expected_schema(coverage.tables)
    for name, sql in expected.items():
        if name not in actual:
            yield Problem("schema", None, f"{name} is missing")
        elif actual[name] != sql:
            yield Problem("schema", None, f"{name} was altered")
    for name in actual.keys() - expected.keys():
        yield Problem("schema", None, f"{escape(name, 100)} is not podledger's")


@cache
def expected_schema(tables: MetaData) -> dict[str, str]:
    """Return the schema that the migrations create, with additional tables."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        with engine.begin() as connection:
            upgrade_to(connection)
            tables.create_all(connection)
            return schema_of(connection)
    finally:
        engine.dispose()
