"""`sql`: run one read-only SQL query; its answer is a table, JSON or CSV."""

from __future__ import annotations

import re
import sys
import unicodedata
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

from podledger.cli.output import print_json, print_table
from podledger.cli.parser import Parser, at_least
from podledger.cli.session import database_path
from podledger.core.errors import LedgerNotFoundError, UsageError
from podledger.core.text import escape, pluralize
from podledger.queries.sql import Query, SqlResult, json_columns, json_value
from podledger.store.connections import read_only
from podledger.store.log import ledger_names
from podledger.store.schema import prepare

FORMULA: Final = ("=", "+", "-", "@")
"""How a spreadsheet recognizes a formula, also in full width."""


def add_arguments(parser: Parser) -> None:
    """Add the query, the format and the limits."""
    parser.add_argument("query", metavar="QUERY", help="one SELECT; docs/sql.md describes the views")
    parser.add_argument("--csv", action="store_true", help="print CSV that is safe to open in a spreadsheet")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=at_least(float, 0.001), default=10.0, help="stop after this (default: 10)"
    )
    parser.add_argument(
        "--limit", metavar="N", type=at_least(int, 0), default=1000, help="print at most N rows (default: 1000)"
    )


def run(args: Namespace) -> None:
    """Run the query and print its answer; if rows were cut off, say so on standard error."""
    path = database_path(args)
    _check_only(path, args.ledger)
    if args.csv and args.json:
        raise UsageError("--csv and --json exclude each other", hint="give one of them")
    query = Query(path, args.query, timeout_s=args.timeout, limit=int(args.limit), alone=args.owns_process)
    answer = query.run()
    if args.json:
        names = json_columns(answer.columns)
        print_json([dict(zip(names, map(json_value, row), strict=True)) for row in answer.rows])
    elif args.csv:
        _print_csv(answer)
    else:
        print_table(answer.columns, ([_cell(value) for value in row] for row in answer.rows), empty="no rows")
    if answer.cut:
        print(f"podledger: only {pluralize(len(answer.rows), 'row')} shown: {answer.cut}", file=sys.stderr)


def _check_only(path: Path, ledger: str | None) -> None:
    """Refuse `--ledger` if the database holds other ledgers: a query sees them all."""
    if ledger is None:
        return
    prepare(path, create=False)
    with read_only(path) as connection:
        names = ledger_names(connection)
    if ledger not in names:
        raise LedgerNotFoundError(f"{path} holds no ledger {ledger!r}", hint=f"it holds {', '.join(names)}")
    if len(names) > 1:
        hint = "leave --ledger out, and select with WHERE ledger = …"
        raise UsageError("a query reads all ledgers of the database, not only --ledger", hint=hint)


def _cell(value: Any) -> Any:
    return f"x'{value[:250].hex()}'" if isinstance(value, bytes) else value


def _print_csv(answer: SqlResult) -> None:
    for row in (answer.columns, *answer.rows):
        sys.stdout.write(",".join(map(_csv_cell, row)) + "\r\n")


def _csv_cell(value: Any) -> str:
    """Return a value as a spreadsheet takes it for a number or a text.

    Every text is quoted, so that no separator of any country splits it, and can control nothing. `--json` is lossless.
    """
    if value is None or isinstance(value, int | float):
        return "" if value is None else str(value)
    text = value.hex() if isinstance(value, bytes) else escape(str(value), kept="\n\t")
    if _is_formula(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"'


def _is_formula(text: str) -> bool:
    start = unicodedata.normalize("NFKC", text.lstrip()[:1])
    return (start in FORMULA or text.startswith("\t")) and not re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text)
