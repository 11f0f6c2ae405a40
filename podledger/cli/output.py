"""How commands print an answer: as JSON, as a table, or as a tree.

Text from pods passes through `escape` or through JSON's escapes, so that no control character reaches a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from podledger.cli.layout import LEAST, table_lines, wrap
from podledger.cli.scopes import rule_text
from podledger.cli.terminal import BOLD, Screen, screen
from podledger.core.text import escape, pluralize
from podledger.core.times import timestamp
from podledger.queries.gaps import Missing

MAX_CELL = 500
"""How many characters of a value a table shows."""

CHUNK = 500
CHUNK_CHARS = 1 << 20
"""How many lines, or characters of lines, are printed at once."""

MIN_LABEL = 24
"""How narrow the label of a pod in a deep tree becomes, in columns."""


def json_text(value: Any) -> str:
    """Return a JSON document on one line, in ASCII."""
    return json.dumps(value, separators=(",", ":"))


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    print(json_text(value), flush=True)


async def print_json_list(fields: dict[str, Any], name: str, items: AsyncIterable[Any]) -> None:
    """Print one JSON document that ends in a list, each item as it comes, however many there are."""
    head = json_text(fields | {name: []}).removesuffix("]}")
    between = head
    async for item in items:
        print(between, json_text(item), sep="", end="")
        between = ","
    print("]}" if between == "," else f"{head}]}}", flush=True)


async def print_json_items(pages: AsyncIterable[Iterable[Any]]) -> None:
    """Print one JSON document, a list, a page of items at a time."""
    between = "["
    async for page in pages:
        for item in page:
            print(between, json_text(item), sep="", end="")
            between = ","
    print("[]" if between == "[" else "]", flush=True)


async def print_table_pages(
    header: Sequence[str], pages: AsyncIterable[Iterable[Sequence[Any]]], *, empty: str
) -> None:
    """Print a table for each page of rows, or the line `empty` if there is no page."""
    is_empty = True
    async for page in pages:
        print_table(header, page, empty=empty)
        is_empty = False
    if is_empty:
        print_line(empty)


def print_missing(missing: Missing) -> None:
    """Say on standard error that reports are missing, if any are: the answer may be incomplete."""
    if missing.reports:
        reports, senders = pluralize(missing.reports, "report"), pluralize(missing.senders, "sender")
        verb = "is" if missing.reports == 1 else "are"
        print(f"note: {reports} of {senders} {verb} missing up to here (see `podledger gaps`)", file=sys.stderr)


def print_line(text: str, style: str = "", *, indent: str = "") -> None:
    """Print a line at once. A terminal that is too narrow gets several, each after the indent."""
    print_lines(wrapped(text, screen(), style, indent=indent))


def wrapped(text: str, on: Screen, style: str = "", *, indent: str = "") -> list[str]:
    """Return a line as it fits the screen, each part after the indent."""
    parts = [text] if on.columns is None else wrap(text, max(on.columns - len(indent), LEAST))
    return [indent + on.paint(part, style) for part in parts]


@contextmanager
def line_printer() -> Iterator[Callable[[str], None]]:
    """Yield a function that prints a line. Many lines are printed at once, the last ones when the block ends."""
    pending: list[str] = []
    characters = 0

    def flush() -> None:
        nonlocal characters
        if pending:
            print_lines(pending)
            pending.clear()
            characters = 0

    def put(line: str) -> None:
        nonlocal characters
        pending.append(line)
        characters += len(line)
        if len(pending) >= CHUNK or characters >= CHUNK_CHARS:
            flush()

    try:
        yield put
    finally:
        flush()


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table that fits the terminal, or the line `empty` if there is no row.

    If standard output is not a terminal, each row is one line.
    """
    print_lines(table(header, rows, screen(), empty=empty))


def print_tree(root: dict[str, Any]) -> None:
    """Print a tree of pods under the owner, each with its scope and the time since when it is open."""
    print_lines(tree(root, screen()))


def print_lines(lines: Iterable[str]) -> None:
    """Print lines in one write: a terminal takes thousands of single ones slowly."""
    print("\n".join(lines), flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], on: Screen, *, empty: str) -> Iterable[str]:
    """Return the lines of a table, or the line `empty` if there is no row."""
    cells = [[cell(value) for value in row] for row in rows]
    return table_lines([cell(name) for name in header], cells, on) if cells else [empty]


def cell(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value), MAX_CELL)


def clock(microseconds: int | None) -> str | None:
    """Return a time for a column whose header names UTC, to the millisecond."""
    return None if microseconds is None else timestamp(microseconds)[:-4].replace("T", " ")


def tree(root: dict[str, Any], on: Screen) -> Iterator[str]:
    """Yield the lines of a tree of pods."""
    yield on.paint(f"{cell(root['pod_name'])} at seq {root['seq']}", BOLD)
    yield from _branches(root["children"], "", on)


def _branches(pods: Sequence[dict[str, Any]], indent: str, on: Screen) -> Iterator[str]:
    for number, pod in enumerate(pods, 1):
        is_last = number == len(pods)
        below = indent + ("    " if is_last else "│   ")
        first, *others = _label(pod, len(below), on)
        yield indent + ("└── " if is_last else "├── ") + first
        yield from (f"{below}{'│   ' if pod['children'] else '    '}{line}" for line in others)
        yield from _branches(pod["children"], below, on)


def _label(pod: dict[str, Any], indent: int, on: Screen) -> list[str]:
    name, rules = cell(pod["pod_name"]), ", ".join(rule_text(**rule) for rule in pod["scope_delegated"])
    since = f", {pod['since'][:19].replace('T', ' ')}Z" if pod["since"] else ""
    label = f"{name}  {cell(rules)}  (since seq {pod['from_seq']}{since})"
    first, *others = [label] if on.columns is None else wrap(label, max(on.columns - indent - 4, MIN_LABEL))
    return [on.paint(name, BOLD) + first.removeprefix(name), *others] if first.startswith(name) else [first, *others]
