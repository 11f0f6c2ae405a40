"""`demo`: run a small tree of real processes, and show its ledger."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from podledger.cli.commands.gaps import HEADER, gap_row
from podledger.cli.commands.verify import verified_text
from podledger.cli.output import clock, print_json, print_lines, table, tree, wrapped
from podledger.cli.parser import Parser
from podledger.cli.picture import COLUMNS, picture
from podledger.cli.terminal import BOLD, GREEN, Screen, screen
from podledger.core.entries import Entry
from podledger.core.errors import StorageError, UsageError
from podledger.core.render import render
from podledger.demo import story
from podledger.integrity.verify import VerifyResult
from podledger.ledger import Ledger
from podledger.queries.gaps import Gap
from podledger.queries.notifications import Notification
from podledger.queries.tree import children_by_parent, tree_json
from podledger.store.sqlite.files import application_id

INTRODUCTION: Final = (
    "root spawned three child processes: planner, coder and tester. planner spawned scout.",
    "They report to root over a socket. Some reports were repeated, late or lost.",
    "tester was killed before it could report its end.",
)
LOG: Final = "The ledger keeps every report. The outcome says how a report changed the registry."
TREE: Final = "These pods are alive. coder stopped. tester was reclaimed because it no longer answered."
GAPS: Final = "coder numbers its reports. Number 2 never arrived."
NOTIFICATIONS: Final = "These lines are for root's agent. coder sent control characters; they are escaped."
VERIFY: Final = "The chain of digests is intact, and the list of pods follows from the log."


class Demo(NamedTuple):
    """The parts of its ledger that the demo shows."""

    tree: dict[str, Any]
    entries: list[Entry]
    notifications: list[Notification]
    gaps: list[Gap]
    verified: VerifyResult

    def as_json(self) -> dict[str, Any]:
        """Return the demo as `demo --json` prints it."""
        return {
            "tree": self.tree,
            "events": [entry.as_json() for entry in self.entries],
            "notifications": [notification.as_json() for notification in self.notifications],
            "gaps": [gap.as_json() for gap in self.gaps],
            "certificate": self.verified.as_json(),
        }


def add_arguments(parser: Parser) -> None:
    """Add the picture."""
    parser.add_argument("--svg", metavar="FILE", help="write the demo as a picture of a terminal, in SVG")


def run(args: Namespace) -> None:
    """Run the demo and print its ledger, or write it as a picture."""
    if args.svg and not (folder := Path(args.svg).parent).is_dir():
        raise UsageError(f"there is no folder {folder}", hint="give --svg a path in a folder that exists")
    demo = story.run(_read)
    if args.svg:
        _write_picture(Path(args.svg), demo)
    if args.json:
        print_json(demo.as_json())
    elif not args.svg:
        print_lines(lines(demo, screen()))


def _write_picture(target: Path, demo: Demo) -> None:
    if application_id(target):
        raise StorageError(f"{target} is a database", hint="choose another name")
    target.write_text(picture("podledger demo", lines(demo, Screen(COLUMNS, colours=True))))


async def _read(ledger: Ledger) -> Demo:
    seq, children = await ledger.read(partial(children_by_parent, ledger=ledger.name, at=None))
    return Demo(
        tree_json(ledger.name, seq, children),
        [entry async for entry in ledger.entries()],
        await ledger.notifications(),
        await ledger.gaps(),
        await ledger.verify(),
    )


def lines(demo: Demo, on: Screen) -> Iterator[str]:
    """Yield the lines of the demo: first the log, then the registry and the other parts that follow from it."""
    for sentence in INTRODUCTION:
        yield from wrapped(sentence, on)
    log = table(("seq", "time (UTC)", "outcome", "event"), map(_row, demo.entries), on, empty="no events")
    yield from _section("The log", "events", LOG, log, on)
    yield from _section("The pods", "pods --tree", TREE, tree(demo.tree, on), on)
    gaps = table(HEADER, map(gap_row, demo.gaps), on, empty="nothing is missing")
    yield from _section("The missing reports", "gaps", GAPS, gaps, on)
    unread = (line for notification in demo.notifications for line in wrapped(notification.line, on))
    yield from _section("The notifications", "notifications", NOTIFICATIONS, unread, on)
    yield from _section("The proof", "verify", VERIFY, wrapped(verified_text(demo.verified), on, GREEN), on)


def _section(title: str, command: str, sentence: str, answer: Iterable[str], on: Screen) -> Iterator[str]:
    yield ""
    yield on.paint(f"{title} (podledger {command})", BOLD)
    yield from wrapped(sentence, on)
    yield ""
    yield from answer


def _row(entry: Entry) -> tuple[Any, ...]:
    time = str(clock(entry.recorded_us)).partition(" ")[2]
    return (entry.seq, time, entry.outcome, render(entry.event))
