"""Scope rules on the command line: `write:PATH`, `read:PATH`, and `-here` for a path and its direct children."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

from podledger.cli.parser import Parser


def add_scope(parser: Parser) -> None:
    """Add the option that states a scope."""
    parser.add_argument(
        "--scope",
        metavar="RULE",
        action="append",
        default=[],
        type=parse_rule,
        help="read:PATH or write:PATH, for PATH and everything below it; read-here:PATH or write-here:PATH, for PATH "
        "and its direct children; repeat it for several rules",
    )


def parse_rule(text: str) -> dict[str, Any]:
    """Return a scope rule as the fields that the protocol gives it."""
    word, colon, target = text.partition(":")
    permission, _, here = word.partition("-")
    if not colon or not target or permission not in ("read", "write") or here not in ("", "here"):
        raise ArgumentTypeError(
            f"{text!r} is not a scope rule: write it as read:PATH or write:PATH (or write-here:PATH)"
        )
    return {"target": target, "permission": permission, "recursive": not here}


def rule_text(target: str, permission: str, recursive: bool | None) -> str:
    """Return a scope rule as `--scope` takes it."""
    return f"{permission}{'' if recursive else '-here'}:{target}"
