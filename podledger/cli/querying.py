"""`sql`: one read-only statement, its answer as a table, as JSON or as CSV."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands, at_least
from podledger.core.text import pluralize

if TYPE_CHECKING:
    from pathlib import Path

    from podledger.queries.sql import SqlResult

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the start of a formula."""


def add_commands(commands: Commands) -> None:
    """Add sql."""
    sql = commands.add("sql", run_sql, "ask the ledger in SQL, read-only")
    sql.add_argument("query", metavar="QUERY", help="one SELECT; docs/sql.md tells of the views")
    sql.add_argument("--csv", action="store_true", help="print CSV, safe to open in a spreadsheet")
    sql.add_argument("--timeout", metavar="SECONDS", type=at_least(float, 0.001), default=10.0, help="at most so long")
    sql.add_argument("--limit", metavar="N", type=at_least(int, 0), default=1000, help="at most so many rows (1000)")


def _check_only(path: Path, ledger: str | None) -> None:
    """Refuse a ledger's name where the database holds others too: a query sees them all."""
    from podledger.core.errors import LedgerNotFoundError, UsageError
    from podledger.store.connections import read_only
    from podledger.store.log import ledger_names
    from podledger.store.schema import prepare

    if ledger is None:
        return
    prepare(path, create=False)
    with read_only(path) as connection:
        names = ledger_names(connection)
    if ledger not in names:
        raise LedgerNotFoundError(f"{path}: no ledger {ledger!r} is in it", hint=f"it holds {', '.join(names)}")
    if len(names) > 1:
        raise UsageError("sql asks the whole database", hint="leave --ledger out, and choose by the column ledger")


def run_sql(args: Namespace) -> None:
    """Run the query and print its answer; what is cut is told on standard error."""
    import sys

    from podledger.cli.output import print_json, print_table
    from podledger.cli.session import database_path
    from podledger.core.errors import UsageError
    from podledger.queries.sql import Query, json_columns, json_value

    path = database_path(args)
    _check_only(path, args.ledger)
    if args.csv and args.json:
        raise UsageError("--csv and --json are two ways to print", hint="give one of them")
    query = Query(path, args.query, timeout_s=args.timeout, limit=int(args.limit), alone=args.alone)
    answer = query.run()
    if args.json:
        names = json_columns(answer.columns)
        print_json([dict(zip(names, map(json_value, row), strict=True)) for row in answer.rows])
    elif args.csv:
        _print_csv(answer)
    else:
        print_table(answer.columns, ([_cell(value) for value in row] for row in answer.rows), empty="no rows")
    if answer.cut:
        print(f"podledger: no more than {pluralize(len(answer.rows), 'row')} shown: {answer.cut}", file=sys.stderr)


def _cell(value: Any) -> Any:
    return f"x'{value[:250].hex()}'" if isinstance(value, bytes) else value


def _print_csv(answer: SqlResult) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout)
    writer.writerow([_csv_cell(column) for column in answer.columns])
    writer.writerows([_csv_cell(value) for value in row] for row in answer.rows)


def _csv_cell(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula, and no terminal for a command."""
    import re
    import sys

    from podledger.core.text import escape

    if value is None or isinstance(value, int | float):
        return value
    text = value.hex() if isinstance(value, bytes) else str(value)
    if sys.stdout.isatty():
        text = escape(text)
    number = re.fullmatch(r"[+-]?\d+(\.\d+)?", text)
    return f"'{text}" if text.startswith(FORMULA) and not number else text
