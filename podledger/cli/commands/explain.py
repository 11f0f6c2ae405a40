"""`explain`: show each event about a pod, with the reason for its outcome in words."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from podledger.cli.output import clock, print_json_list, print_line, print_missing
from podledger.cli.parser import Parser
from podledger.cli.session import add_at, moment_of, with_ledger, with_missing
from podledger.cli.terminal import BOLD, STYLES
from podledger.core.text import escape
from podledger.ledger import Ledger
from podledger.queries.explain import Explained, PodHistory
from podledger.queries.moments import Moment


def add_arguments(parser: Parser) -> None:
    """Add the pod and the moment."""
    parser.add_argument("pod", metavar="POD", help="name of the pod")
    add_at(parser)


def run(args: Namespace) -> None:
    """Print the events about a pod, and at the end its status."""
    at, history = moment_of(args.at), PodHistory(args.pod)

    async def as_json(ledger: Ledger) -> None:
        events = ledger.explain(args.pod, at, history=history)
        await print_json_list({"pod_name": args.pod}, "events", (event.as_json() async for event in events))

    async def as_text(ledger: Ledger, at: Moment) -> None:
        silent = True
        async for event in ledger.explain(args.pod, at, history=history):
            silent = False
            _print_event(event)
        if silent:
            print_line(f"no event is about {escape(args.pod)}")

    if args.json:
        with_ledger(args, as_json)
        return
    _, missing = with_ledger(args, lambda ledger: with_missing(ledger, partial(as_text, ledger), at))
    print_line(history.status(), BOLD)
    print_missing(missing)


def _print_event(event: Explained) -> None:
    entry = event.entry
    by = " by the owner" if entry.evidence != "reported" else " by an unknown process"
    if entry.uid is not None and entry.pid is None:
        by = f", from the spool of user {entry.uid}"
    elif entry.pid is not None:
        by = f" by process {entry.pid} of user {entry.uid}"
    print_line(
        f"seq {entry.seq}  {clock(entry.recorded_us)}Z  {escape(entry.kind, 30)}, {escape(entry.evidence, 20)}{by}"
    )
    print_line(escape(event.because, 500), STYLES.get(entry.outcome, ""), indent="    ")
