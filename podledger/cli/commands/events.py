"""`events`: list the log."""

from __future__ import annotations

import asyncio
import re
from argparse import Namespace
from typing import Final, get_args

from podledger.cli.layout import cells
from podledger.cli.output import clock, json_text, line_printer, print_line, wrapped
from podledger.cli.parser import Parser, at_least
from podledger.cli.session import moment_of, with_ledger
from podledger.cli.terminal import STYLES, Screen, screen
from podledger.core.entries import Entry, Outcome
from podledger.core.errors import UsageError
from podledger.core.events import KINDS
from podledger.core.render import render
from podledger.core.text import escape
from podledger.ledger import Ledger

FOLLOW_S: Final = 0.2
"""How often `--follow` looks for new entries."""


def add_arguments(parser: Parser) -> None:
    """Add the filters."""
    parser.add_argument("--pod", metavar="NAME", help="only events about this pod")
    parser.add_argument("--kind", metavar="KIND", help=f"only events of this kind: {', '.join(KINDS)}")
    parser.add_argument("--outcome", metavar="OUTCOME", help=f"only with this outcome: {', '.join(get_args(Outcome))}")
    parser.add_argument("--since", metavar="X", help="from this seq or time on")
    parser.add_argument("--until", metavar="X", help="up to and including this seq or time")
    parser.add_argument("--limit", metavar="N", type=at_least(int, 0), help="at most N events")
    parser.add_argument("--follow", action="store_true", help="also print new events as they arrive, until interrupted")


def run(args: Namespace) -> None:
    """Print the log; with `--follow`, also new entries as they arrive."""
    _check(args)
    with_ledger(args, lambda ledger: _print_events(ledger, args))


def _check(args: Namespace) -> None:
    if args.follow and args.until:
        raise UsageError("--follow has no end and --until sets one", hint="leave one of them out")
    for option, known in (("kind", KINDS), ("outcome", get_args(Outcome))):
        value = getattr(args, option)
        if value is not None and value not in known:
            raise UsageError(f"unknown {option} {value!r}", hint=f"give one of {', '.join(known)}")


async def _print_events(ledger: Ledger, args: Namespace) -> None:
    since, until, left = moment_of(args.since), moment_of(args.until), args.limit
    if isinstance(since, int) and isinstance(until, int) and since > until:
        raise UsageError(f"--since {since} is after --until {until}", hint="give the earlier one as --since")
    silent, on = not args.json and not args.follow, screen()
    while left != 0:
        head = (await ledger.head()).head_seq
        entries = ledger.entries(
            pod=args.pod,
            kind=args.kind,
            outcome=args.outcome,
            since=since,
            until=head if until is None else until,
            limit=left,
        )
        with line_printer() as put:
            async for entry in entries:
                for line in [json_text(entry.as_json())] if args.json else entry_lines(entry, on):
                    put(line)
                silent = False
                left = None if left is None else left - 1
        if not args.follow or left == 0:
            break
        while (await ledger.head()).head_seq == head:
            await asyncio.sleep(FOLLOW_S)
        since = head + 1
    if silent:
        print_line("no events")


def entry_lines(entry: Entry, on: Screen) -> list[str]:
    """Return an entry as one line, or as several if the screen is too narrow."""
    pod, text, style = escape(entry.pod_name, 60), escape(render(entry.event), 500), STYLES.get(entry.outcome, "")
    outcome, kind = escape(entry.outcome, 20), escape(entry.kind, 30)
    about = f"{entry.seq:>6}  {clock(entry.recorded_us)}Z  {outcome:<9}  {kind:<19}  {pod:<16}"
    if on.columns is None or cells(f"{about}  {text}") <= on.columns:
        return [on.paint(f"{about}  {text}", style)]
    if cells(about) > on.columns:
        about = re.sub(" {2,}", "  ", about.strip())
    return [*wrapped(about.rstrip(), on, style), *wrapped(text, on, style, indent=" " * 8)]
