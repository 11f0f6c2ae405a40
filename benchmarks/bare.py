"""The reference: insert podledger's rows into the same table with Python's sqlite3 alone.

It is as durable (WAL, `synchronous=FULL`), but has no chain, rules, projections or triggers.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any, NamedTuple

Row = tuple[Any, ...]


class Log(NamedTuple):
    """A log for bare SQLite: the statement that creates its table, the columns, and the rows."""

    table: str
    columns: list[str]
    rows: list[Row]


def log_of(database: Path) -> Log:
    """Return the log of a podledger database."""
    connection = sqlite3.connect(database)
    (table,) = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'events'").fetchone()
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(events)")]
    rows = connection.execute("SELECT * FROM events ORDER BY seq").fetchall()
    connection.close()
    return Log(table, columns, rows)


def insert(path: Path, log: Log, per_commit: int, *, nulls: bool = True) -> float:
    """Insert the rows into a new file, `per_commit` per transaction; return rows per second.

    Without `nulls`, omit the columns that are null in the first row, and so in all. podledger omits them too, because
    binding a null takes Python's driver longer than binding five values.
    """
    held = [position for position, value in enumerate(log.rows[0]) if nulls or value is not None]
    names = ", ".join(log.columns[position] for position in held)
    statement = f"INSERT INTO events ({names}) VALUES ({', '.join('?' for _ in held)})"
    bound = [tuple(row[position] for position in held) for row in log.rows]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(log.table)
    started = time.perf_counter()
    for start in range(0, len(bound), per_commit):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(statement, bound[start : start + per_commit])
        connection.execute("COMMIT")
    took = time.perf_counter() - started
    connection.close()
    return len(bound) / took
