"""What the ledger knows: its log, the registry of any moment, what the agent should be told, what was not taken."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands, Parser, at_least

if TYPE_CHECKING:
    from podledger.core.entries import Entry
    from podledger.ledger import Ledger
    from podledger.queries.moments import Moment

FOLLOW_S = 0.2
"""How often `events --follow` looks for more."""


def add_commands(commands: Commands) -> None:
    """events, pods, notifications, rejected."""
    events = commands.add("events", run_events, "the log")
    events.add_argument("--pod", metavar="NAME", help="only of this pod")
    events.add_argument("--kind", metavar="KIND", help="only of this kind")
    events.add_argument("--outcome", metavar="OUTCOME", help="only with this outcome")
    events.add_argument("--since", metavar="X", help="from this seq or time on")
    events.add_argument("--until", metavar="X", help="up to and with this seq or time")
    events.add_argument("--limit", metavar="N", type=at_least(int, 0), help="no more than so many")
    events.add_argument("--follow", action="store_true", help="go on with what comes, until interrupted")

    pods = commands.add("pods", run_pods, "the registry, now or at a moment")
    add_at(pods)
    pods.add_argument("--all", action="store_true", help="also the tenures that were over by then")
    pods.add_argument("--tree", action="store_true", help="as a tree, orphans under their nearest living ancestor")

    notifications = commands.add("notifications", run_notifications, "what the agent should be told")
    notifications.add_argument("--consumer", metavar="NAME", help="whose cursor (agent)")
    notifications.add_argument("--ack", action="store_true", help="move the cursor past what is printed")

    commands.add("rejected", run_rejected, "the lines that were no events")


def add_at(parser: Parser) -> None:
    """The option that names a moment."""
    parser.add_argument("--at", metavar="X", help="a seq, or a time in ISO 8601 (UTC unless it says otherwise)")


def moment_of(text: str | None) -> Moment:
    """The moment that an argument names."""
    from podledger.queries.moments import parse_moment

    return None if text is None else parse_moment(text)


def run_events(args: Namespace) -> None:
    """Print the log, and with --follow what comes."""
    from podledger.cli.session import with_ledger

    _check_words(args)
    with_ledger(args, lambda ledger: _print_events(ledger, args))


def _check_words(args: Namespace) -> None:
    from typing import get_args

    from podledger.core.entries import Outcome
    from podledger.core.errors import UsageError
    from podledger.core.events import KINDS

    if args.follow and args.until:
        raise UsageError("--follow has no end, and --until is one", hint="leave one of them out")
    for option, known in (("kind", KINDS), ("outcome", get_args(Outcome))):
        value = getattr(args, option)
        if value is not None and value not in known:
            raise UsageError(f"--{option} {value!r} is none of the {option}s", hint=f"give one of {', '.join(known)}")


async def _print_events(ledger: Ledger, args: Namespace) -> None:
    import asyncio

    from podledger.cli.output import print_line
    from podledger.core.errors import UsageError

    since, until, left = moment_of(args.since), moment_of(args.until), args.limit
    if isinstance(since, int) and isinstance(until, int) and since > until:
        raise UsageError(f"--since {since} is after --until {until}", hint="give the earlier one as --since")
    silent = not args.json and not args.follow
    while left != 0:
        head = (await ledger.head()).head_seq
        async for entry in ledger.entries(
            pod=args.pod,
            kind=args.kind,
            outcome=args.outcome,
            since=since,
            until=head if until is None else until,
            limit=left,
        ):
            _print_entry(entry, as_json=args.json)
            silent = False
            left = None if left is None else left - 1
        if not args.follow or left == 0:
            break
        while (await ledger.head()).head_seq == head:
            await asyncio.sleep(FOLLOW_S)
        since = head + 1
    if silent:
        print_line("no events")


def _print_entry(entry: Entry, *, as_json: bool) -> None:
    from podledger.cli.output import STYLES, clock, print_json, print_line
    from podledger.core.render import render
    from podledger.core.text import escape

    if as_json:
        print_json(entry.as_json())
        return
    pod = escape(entry.pod_name, 60)
    text = f"{entry.seq:>6}  {clock(entry.recorded_us)}  {entry.outcome:<9}  {entry.kind:<19}  {pod:<16}  "
    print_line(text + escape(render(entry.event), 500), STYLES.get(entry.outcome, ""))


def run_pods(args: Namespace) -> None:
    """Print the registry."""
    from podledger.cli.output import print_json, print_table, tell_missing
    from podledger.cli.session import with_ledger

    if args.tree and args.all:
        from podledger.core.errors import UsageError

        raise UsageError("--tree draws the pods that stand", hint="leave --all out, or ask for the list")
    if args.tree:
        _print_tree(args)
        return
    at = moment_of(args.at)

    async def work(ledger: Ledger) -> Any:
        return await ledger.pods(at, closed=args.all), None if args.json else await ledger.missing(at)

    pods, missing = with_ledger(args, work)
    if args.json:
        print_json([pod.as_json() for pod in pods])
        return
    columns = ("pod", "parent", "socket", "scope", "since seq", "until seq", "closed by", "evidence")
    print_table(
        columns,
        (
            (
                *(pod.pod_name, pod.parent_pod, pod.socket_path, _scope(pod)),
                *(pod.from_seq, pod.until_seq, pod.closed_by, pod.evidence),
            )
            for pod in pods
        ),
        empty="no pods",
    )
    tell_missing(missing)


def _scope(pod: Any) -> str:
    rules = (f"{rule.permission}{'' if rule.recursive else '-here'}:{rule.target}" for rule in pod.scope_delegated)
    return " ".join(rules)


def _print_tree(args: Namespace) -> None:
    from functools import partial

    from podledger.cli.output import print_json, print_tree, tell_missing
    from podledger.cli.session import with_ledger
    from podledger.queries.tree import children_by_parent, tree_json

    at = moment_of(args.at)

    async def work(ledger: Ledger) -> Any:
        seq, children = await ledger.read(partial(children_by_parent, ledger=ledger.name, at=at))
        return ledger.name, seq, children, None if args.json else await ledger.missing(seq)

    name, seq, children, missing = with_ledger(args, work)

    tree = tree_json(name, seq, children)
    if args.json:
        print_json(tree)
    else:
        print_tree(tree)
        tell_missing(missing)


def run_notifications(args: Namespace) -> None:
    """Print what the agent should be told, and with --ack take it for told."""
    from podledger.cli.output import clock, print_json, print_line
    from podledger.cli.session import with_ledger
    from podledger.queries.notifications import DEFAULT_CONSUMER

    consumer = DEFAULT_CONSUMER if args.consumer is None else args.consumer

    async def work(ledger: Ledger) -> None:
        after = 0
        found = []
        while page := await ledger.notifications(consumer, after=after):
            after = page[-1].seq
            if args.json:
                found += [notification.as_json() for notification in page]
            else:
                for notification in page:
                    print_line(f"{clock(notification.recorded_us)}  {notification.line}")
        if args.json:
            print_json(found)
        elif not after:
            print_line("no notifications")
        if args.ack and after:
            await ledger.acknowledge(after, consumer)

    with_ledger(args, work)


def run_rejected(args: Namespace) -> None:
    """Print the lines that were not taken."""
    from podledger.cli.output import clock, print_json, print_table
    from podledger.cli.session import with_ledger

    async def work(ledger: Ledger) -> list[Any]:
        found: list[Any] = []
        while page := await ledger.rejected(after=found[-1].number if found else 0):
            found += page
        return found

    rows = with_ledger(args, work)
    if args.json:
        print_json([row.as_json() for row in rows])
        return
    columns = ("number", "recorded at", "pid", "uid", "reason", "bytes")
    print_table(
        columns,
        (
            (
                row.number,
                clock(row.recorded_us),
                row.pid,
                row.uid,
                row.reason,
                row.raw[:200].decode(errors="replace"),
            )
            for row in rows
        ),
        empty="no rejected lines",
    )
