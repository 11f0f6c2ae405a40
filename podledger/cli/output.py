"""How answers are printed: JSON, tables, lines, and the progress of long work.

All text from pods goes through `names.shown` or through JSON's escapes, so that no control character of theirs
reaches a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from podledger.core.text import escape, pluralize
from podledger.core.times import timestamp

if TYPE_CHECKING:
    from podledger.queries.gaps import Missing

STYLES = {
    "applied": "green",
    "confirmed": "green",
    "revived": "cyan",
    "conflict": "bold red",
    "late": "yellow",
    "unknown": "yellow",
    "duplicate": "dim",
    "ignored": "dim",
    "ok": "green",
    "warning": "yellow",
    "error": "bold red",
}
"""The colours of outcomes, and of the doctor's levels, on a terminal."""


def print_json(value: Any) -> None:
    """One JSON document on one line, in ASCII."""
    print(json.dumps(value, separators=(",", ":")), flush=True)


async def print_json_list(fields: dict[str, Any], name: str, items: AsyncIterable[Any]) -> None:
    """One JSON document that ends in a list, however long: each item is printed as it comes."""
    head = json.dumps(fields | {name: []}, separators=(",", ":")).removesuffix("]}")
    between = head
    async for item in items:
        print(between, json.dumps(item, separators=(",", ":")), sep="", end="")
        between = ","
    print("]}" if between == "," else f"{head}]}}", flush=True)


def tell_missing(missing: Missing) -> None:
    """Say on standard error that an answer rests on a record with gaps, if it does."""
    if missing.reports:
        reports, senders = pluralize(missing.reports, "report"), pluralize(missing.senders, "sender")
        verb = "is" if missing.reports == 1 else "are"
        print(f"note: {reports} of {senders} {verb} missing up to here (podledger gaps)", file=sys.stderr)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "nothing") -> None:
    """A table; where there is no row, the word for that."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(Text(cell(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value), style=STYLES.get(str(value), "")) for value in row))
    if table.row_count == 0:
        print(empty)
        return
    Console(highlight=False, width=None if sys.stdout.isatty() else 10_000, soft_wrap=False).print(table)


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value), 500)


def print_line(text: str, style: str = "") -> None:
    """One line, coloured on a terminal."""
    if style and sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        Console(highlight=False).print(Text(text, style=style), soft_wrap=True)
        return
    print(text, flush=True)


def clock(microseconds: int) -> str:
    """A time for a table: UTC, to the millisecond."""
    return timestamp(microseconds)[:-4].replace("T", " ")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error for work that takes long, on a terminal alone."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_tree(root: dict[str, Any]) -> None:
    """A tree of pods, each with its scope, under the owner."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    def grow(branch: Tree, node: dict[str, Any]) -> None:
        for child in node["children"]:
            lent = ", ".join(f"{rule['permission']}:{rule['target']}" for rule in child["scope_delegated"])
            label = Text(cell(child["pod_name"]), style="bold")
            grow(
                branch.add(label.append(f"  {cell(lent)}  (since seq {child['from_seq']})", style="dim")),
                child,
            )

    tree = Tree(Text(f"{cell(root['pod_name'])} at seq {root['seq']}", style="bold"))
    grow(tree, root)
    Console(highlight=False, width=None if sys.stdout.isatty() else 10_000).print(tree)
