"""The parser: the options that all commands share, and the commands of each module."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, NoReturn

from podledger.core.errors import UsageError

Run = Callable[[argparse.Namespace], int | None]

COMMAND_MODULES = ("facts", "serving", "sending", "reading", "auditing", "querying", "proving", "upkeep", "carrying")
"""The modules of this package that define commands, in the order of the help page."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, as every other error is told."""

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError."""
        raise UsageError(message, hint=f"see `{self.prog} --help`")


class Commands:
    """Where the modules put their commands."""

    def __init__(self, subparsers: argparse._SubParsersAction[Parser], shared: Parser) -> None:
        self._subparsers = subparsers
        self.shared = shared

    def add(self, name: str, run: Run, help: str) -> Parser:  # noqa: A002 - argparse's own word
        """A new command; `run` takes the parsed arguments and gives the exit status, None for 0."""
        parser = self._subparsers.add_parser(name, help=help, description=help, parents=[self.shared])
        parser.set_defaults(run=run)
        return parser


QUICK: Final = {"send": ("sending",)}
"""Commands that are started for each event: where one is the first word, the others are not even defined."""


def build_parser(words: Sequence[str] = ()) -> Parser:
    """The command line that `words` are to be parsed by: the whole of it, unless they begin with a quick command."""
    from podledger import __version__

    parser = Parser(prog="podledger", description="A flight append for trees of agent processes.")
    parser.add_argument("--version", action="version", version=f"podledger {__version__}")
    _add_shared(parser, default=None)
    shared = Parser(add_help=False)
    _add_shared(shared, default=argparse.SUPPRESS)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    commands = Commands(subparsers, shared)
    for module in QUICK.get(words[0], COMMAND_MODULES) if words else COMMAND_MODULES:
        import_module(f"podledger.cli.{module}").add_commands(commands)
    return parser


def _add_shared(parser: argparse.ArgumentParser, default: str | None) -> None:
    options = parser.add_argument_group("shared options")
    options.add_argument(
        "--db",
        metavar="PATH",
        default=default,
        help="the database, a path or sqlite:///PATH (PODLEDGER_DB; podledger.db here)",
    )
    options.add_argument(
        "--ledger",
        metavar="NAME",
        default=default,
        help="the ledger, where the database holds several (PODLEDGER_LEDGER)",
    )
    options.add_argument("--json", action="store_true", default=default or False, help="print JSON")


def non_empty(text: str) -> str:
    """An argument type: any text but none."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def at_least(kind: type[int] | type[float], least: float) -> Callable[[str], float]:
    """An argument type: a number no less than `least`."""

    def parse(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    parse.__name__ = "whole number" if kind is int else "number"
    return parse
