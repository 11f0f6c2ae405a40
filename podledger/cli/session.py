"""What commands share that work on a ledger: the settings, the open ledger, the event loop."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from podledger.core.text import escape
from podledger.ledger import Ledger
from podledger.settings import Settings
from podledger.store.database import locate

T = TypeVar("T")


@cache
def settings() -> Settings:
    """The environment's settings, read once.

    Raises:
        UsageError: one of them has no sense.
    """
    from pydantic import ValidationError

    from podledger.core.errors import UsageError

    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = "PODLEDGER_" + "_".join(str(part) for part in problem["loc"]).upper()
        if problem["type"] == "frozen_set_type":
            raise UsageError(f"{name} is no list", hint="give a JSON list, as in [1000]") from error
        reason = problem["msg"].removeprefix("Value error, ")
        raise UsageError(f"{name}: {reason}", hint="correct the variable, or unset it") from error


def open_ledger(args: Namespace, *, name: str | None = None) -> Ledger:
    """The ledger that the arguments name; with `name`, that one, made and brought up to date if need be."""
    chosen = next((given for given in (name, args.ledger) if given is not None), settings().ledger)
    return Ledger.open(database_path(args), chosen, create=name is not None, busy_timeout_s=settings().busy_timeout_s)


def with_ledger(args: Namespace, work: Callable[[Ledger], Awaitable[T]]) -> T:
    """Run `work` on the ledger that the arguments name."""

    async def run() -> T:
        async with open_ledger(args) as ledger:
            done = await work(ledger)
            coverage = ledger.database.coverage
            if not (coverage.is_whole or args.json):
                print(f"podledger: {escape(coverage.describe())}", file=sys.stderr)
            return done

    return asyncio.run(run())


def database_path(args: Namespace) -> Path:
    """The file that the arguments name."""
    return locate(settings().db if args.db is None else args.db)
