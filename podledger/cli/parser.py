"""The argument parser: it finds the command in the table, then lets the command's module parse the rest."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final, NoReturn, Protocol, cast

from podledger.cli.table import COMMANDS, GROUPS
from podledger.core.errors import UsageError
from podledger.core.times import MAX_SECONDS


class CommandModule(Protocol):
    """The functions that each module in `podledger.cli.commands` defines.

    A module may also define `complete`, which adds words from the environment to the command line.
    """

    def add_arguments(self, parser: Parser, /) -> None:
        """Add the command's own arguments."""

    def run(self, args: argparse.Namespace, /) -> int | None:
        """Run the command and return its exit status, None for 0."""


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake as a `UsageError`, in one line like every other error."""

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError."""
        raise UsageError(message, hint=f"see `{self.prog} --help`")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; its `run` is the function of the chosen command.

    Raises:
        UsageError: the words are not a valid command line.
    """
    args = _top_parser().parse_args(words)
    if args.command is None:
        raise UsageError("no command is given", hint="see `podledger --help`")
    command = COMMANDS.get(args.command)
    if command is None:
        raise UsageError(f"unknown command {args.command!r}{_suggestion(args.command)}", hint="see `podledger --help`")
    module = cast("CommandModule", import_module(f"podledger.cli.commands.{command.module}"))
    description = f"{command.help[0].upper()}{command.help[1:]}."
    parser = Parser(prog=f"podledger {command.name}", description=description, parents=[shared_options()])
    module.add_arguments(parser)
    parser.parse_args(getattr(module, "complete", list)(args.rest), args)
    args.run = module.run
    return args


def shared_options(default: str | None = argparse.SUPPRESS) -> Parser:
    """Return a parent parser with the options of every command.

    You can give them before or after the command. With this default, those after it keep the values given before it.
    """
    parser = Parser(add_help=False)
    options = parser.add_argument_group("shared options")
    options.add_argument(
        "--db", metavar="PATH", default=default, help="database file (default: $PODLEDGER_DB, else podledger.db)"
    )
    options.add_argument(
        "--ledger", metavar="NAME", default=default, help="ledger, if the database has several ($PODLEDGER_LEDGER)"
    )
    options.add_argument("--json", action="store_true", default=default or False, help="print JSON")
    return parser


def _top_parser() -> Parser:
    from podledger import __version__

    parser = Parser(
        prog="podledger",
        usage="podledger [--db PATH] [--ledger NAME] [--json] COMMAND ...",
        description="A flight recorder for trees of agent processes.",
        epilog=_command_list(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared_options(default=None)],
        allow_abbrev=False,  # the command's own parser interprets the words after it
    )
    parser.add_argument("--version", action="version", version=f"podledger {__version__}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


_NAME_COLUMNS: Final = max(map(len, COMMANDS)) + 2


def _command_list() -> str:
    """Return the commands and their help, as `podledger --help` prints them."""
    lines: list[str] = []
    for title, commands in GROUPS.items():
        lines += [f"{title}:", *(f"  {name:<{_NAME_COLUMNS}}{text}" for name, text, _ in commands), ""]
    return "\n".join([*lines, "`podledger COMMAND --help` describes a command."])


def _suggestion(word: str) -> str:
    from difflib import get_close_matches  # only a mistake needs it

    close = get_close_matches(word, COMMANDS, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def non_empty(text: str) -> str:
    """Return a text argument, which must not be empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


MAX_NUMBER: Final = (1 << 63) - 1
"""The greatest whole number that SQLite holds."""


def at_least(kind: type[int] | type[float], least: float) -> Callable[[str], float]:
    """Return an argument type: a number no less than `least`, and no greater than a column or a timer holds."""
    most = MAX_NUMBER if kind is int else MAX_SECONDS

    def parse_number(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{text} is more than {most:,.0f}")
        return value

    parse_number.__name__ = "whole number" if kind is int else "number"
    return parse_number
