"""The parts that commands share to open a ledger: the settings, the database, the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import SettingsError

from podledger.cli.parser import Parser
from podledger.core.errors import UsageError
from podledger.core.text import escape
from podledger.ledger import Ledger
from podledger.queries.gaps import Missing
from podledger.queries.moments import Moment, parse_moment, resolve
from podledger.settings import Settings
from podledger.store.database import locate
from podledger.store.sqlite.bounded import limit_heap

T = TypeVar("T")


def settings() -> Settings:
    """Return the settings of the environment.

    Raises:
        UsageError: a variable has no valid value.
    """
    try:
        return Settings()
    except (SettingsError, RecursionError) as error:  # the only variable that holds JSON
        raise UsageError("PODLEDGER_ALLOWED_UIDS is not a list", hint="give a JSON list, such as [1000]") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = "PODLEDGER_" + "_".join(str(part) for part in problem["loc"]).upper()
        if problem["type"] == "frozen_set_type":
            raise UsageError(f"{name} is not a list", hint="give a JSON list, such as [1000]") from error
        reason = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
        value = escape(os.environ.get(name, ""), 60)
        raise UsageError(f"{name} is {value!r}, but {reason}", hint="correct the variable, or unset it") from error


def database_path(args: Namespace) -> Path:
    """Return the database file that the arguments name; SQLite's memory is limited from here on in our own process."""
    if args.owns_process:
        limit_heap()
    return locate(settings().db if args.db is None else args.db)


def ledger_name(args: Namespace) -> str | None:
    """Return the ledger that the arguments or the environment name; None for the only one in the database."""
    return settings().ledger if args.ledger is None else str(args.ledger)


def open_ledger(args: Namespace) -> Ledger:
    """Return the existing ledger that the arguments name, to be opened with `async with`."""
    return Ledger.open(database_path(args), ledger_name(args), create=False, busy_timeout_s=settings().busy_timeout_s)


def with_ledger(args: Namespace, work: Callable[[Ledger], Awaitable[T]]) -> T:
    """Open the ledger that the arguments name, and return the result of `work`."""

    async def run() -> T:
        async with open_ledger(args) as ledger:
            done = await work(ledger)
            coverage = ledger.database.coverage
            if not (coverage.is_whole or args.json):
                print(f"podledger: {escape(coverage.describe())}", file=sys.stderr)
            return done

    return asyncio.run(run())


async def with_missing(ledger: Ledger, ask: Callable[[int], Awaitable[T]], at: Moment) -> tuple[T, Missing]:
    """Return the answer of `ask` at a moment, and how many reports were missing then.

    Both are asked at one seq, so that an event appended in between belongs to neither.
    """
    seq = await ledger.read(partial(resolve, ledger=ledger.name, at=at))
    return await ask(seq), await ledger.missing(seq)


def add_at(parser: Parser) -> None:
    """Add the option that names a moment."""
    parser.add_argument("--at", metavar="X", help="moment: a seq, or a time in ISO 8601 (UTC unless it has an offset)")


def moment_of(text: str | None) -> Moment:
    """Return the moment that an argument names."""
    return None if text is None else parse_moment(text)
