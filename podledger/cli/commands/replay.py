"""`replay`: show the changes that another order of the events would make; nothing is written."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.output import json_text, print_line, print_missing, print_table
from podledger.cli.parser import Parser
from podledger.cli.session import add_at, moment_of, with_ledger, with_missing
from podledger.cli.terminal import BOLD, progress
from podledger.core.text import escape
from podledger.ledger import Ledger
from podledger.queries.replay import ChangedOutcome, ChangedPod, PodContent, ReplayOptions, ReplayResult


def add_arguments(parser: Parser) -> None:
    """Add the order, and the option to ignore stamps."""
    parser.add_argument(
        "--order", choices=("logged", "sent"), default="logged", help="sent: as the senders numbered their reports"
    )
    parser.add_argument("--without-stamps", action="store_true", help="as if no report had a stamp")
    add_at(parser)


def run(args: Namespace) -> None:
    """Print each event that would have another outcome, then the pods whose content would differ."""
    plan = ReplayOptions(args.order, not args.without_stamps, moment_of(args.at))
    if args.json:
        with_ledger(args, lambda ledger: _print_json(ledger, plan))
        return
    result, missing = with_ledger(
        args, lambda ledger: with_missing(ledger, lambda at: _print_changes(ledger, plan._replace(at=at)), plan.at)
    )
    print_line(f"{result.reversals} of {result.until_seq} events would have another outcome", BOLD)
    header = ("pod", "in the ledger", "in the replay")
    rows = ((pod.pod_name, *map(_standing, _both(pod))) for pod in result.pods)
    print_table(header, rows, empty="the registry would be the same")
    print_missing(missing)


async def _print_changes(ledger: Ledger, plan: ReplayOptions) -> ReplayResult:
    with progress("replay", prints=True) as update:
        return await ledger.replay(plan, _print_change, update)


async def _print_json(ledger: Ledger, plan: ReplayOptions) -> None:
    """Print one document, each changed outcome as it comes: there may be as many as events."""
    between = ""

    def print_change(change: ChangedOutcome) -> None:
        nonlocal between
        print(between, json_text(change.as_json()), sep="", end="")
        between = ","

    without = "false" if plan.stamps else "true"
    print(f'{{"order":"{plan.order}","without_stamps":{without},"events":[', end="")
    with progress("replay", prints=True) as update:
        result = await ledger.replay(plan, print_change, update)
    pods = json_text([pod.as_json() for pod in result.pods])
    print(f'],"until_seq":{result.until_seq},"reversals":{result.reversals},"pods":{pods}}}')


def _print_change(change: ChangedOutcome) -> None:
    print_line(
        f"seq {change.seq}  {change.kind} of {escape(change.pod_name, 60)}: "
        f"{change.logged} in the log, {change.now} in the replay"
    )


def _both(pod: ChangedPod) -> tuple[PodContent | None, PodContent | None]:
    return (pod.logged, pod.now)


def _standing(standing: PodContent | None) -> str:
    if standing is None:
        return "not in the registry"
    incarnation = f", incarnation {standing.incarnation}" if standing.incarnation else ""
    return f"{standing.socket_path} under {standing.parent_pod} since seq {standing.opened_by}{incarnation}"
