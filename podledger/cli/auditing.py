"""After an incident: who could write, why a pod stands as it does, what changed, what is missing, what if."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands
from podledger.cli.reading import add_at, moment_of

if TYPE_CHECKING:
    from podledger.ledger import Ledger
    from podledger.queries.diff import Edge, PodChange, RegistryDiff
    from podledger.queries.explain import Explained, PodHistory
    from podledger.queries.replay import ChangedOutcome, ChangedPod, PodContent


def add_commands(commands: Commands) -> None:
    """Add holders, explain, diff, gaps, replay."""
    holders = commands.add("holders", run_holders, "who may write a path, and the chain of delegation")
    holders.add_argument("path", metavar="PATH")
    add_at(holders)

    explain = commands.add("explain", run_explain, "the life of a pod, event by event, each with the reason in words")
    explain.add_argument("pod", metavar="POD")
    add_at(explain)

    diff = commands.add("diff", run_diff, "what changed in registry and grants between two moments")
    diff.add_argument("before", metavar="X", help="a seq or a time")
    diff.add_argument("after", metavar="Y", help="a later one")

    gaps = commands.add("gaps", run_gaps, "what stamped senders sent and this ledger never got")
    add_at(gaps)

    replay = commands.add("replay", run_replay, "what the registry would be, had the events come otherwise")
    replay.add_argument("--order", choices=("logged", "sent"), default="logged", help="sent: in the senders' order")
    replay.add_argument("--without-stamps", action="store_true", help="as if nobody had stamped anything")
    add_at(replay)


def run_holders(args: Namespace) -> None:
    """Print who could write a path."""
    from podledger.cli.output import print_json, print_table, tell_missing
    from podledger.cli.session import with_ledger

    at = moment_of(args.at)

    async def work(ledger: Ledger) -> Any:
        return await ledger.holders_with_missing(args.path, at)

    holders, missing = with_ledger(args, work)
    if args.json:
        found = [holder.as_json() for holder in holders]
        print_json({"path": args.path, "holders": found, "gaps": missing._asdict()})
        return
    rows = ((h.pod_name, _lent(h.target, h.recursive), " > ".join(h.chain)) for h in holders)
    print_table(("pod", "by its grant", "chain of delegation"), rows)
    tell_missing(missing)


def _lent(target: str | None, recursive: bool | None) -> str:
    if target is None:
        return "its own: nobody else holds it"
    return f"write{'' if recursive else '-here'}:{target}"


def run_explain(args: Namespace) -> None:
    """Print the life of a pod."""
    from podledger.cli.output import print_json_list, print_line, tell_missing
    from podledger.cli.session import with_ledger
    from podledger.core.text import escape
    from podledger.queries.explain import PodHistory

    at, history = moment_of(args.at), PodHistory(args.pod)

    async def work(ledger: Ledger) -> Any:
        events = ledger.explain(args.pod, at, history=history)
        if args.json:
            await print_json_list({"pod_name": args.pod}, "events", (event.as_json() async for event in events))
            return None
        none = True
        async for event in events:
            none = False
            _print_event(event)
        if none:
            print_line(f"no event is about {escape(args.pod)}")
        return await ledger.missing(at)

    missing = with_ledger(args, work)
    if missing is not None:
        _print_status(history)
        tell_missing(missing)


def _print_event(event: Explained) -> None:
    from podledger.cli.output import STYLES, clock, print_line
    from podledger.core.text import escape

    entry = event.entry
    by = " by the owner" if entry.evidence != "reported" else ", by whom is not recorded"
    if entry.pid is not None:
        by = f" by process {entry.pid} of user {entry.uid}"
    print_line(f"seq {entry.seq}  {clock(entry.recorded_us)}  {entry.kind}, {entry.evidence}{by}")
    print_line(f"    {escape(event.because, 500)}", STYLES.get(entry.outcome, ""))


def _print_status(history: PodHistory) -> None:
    from podledger.cli.output import print_line

    print_line(history.status(), "bold")


def run_diff(args: Namespace) -> None:
    """Print what changed."""
    from podledger.cli.output import print_json, print_table, tell_missing
    from podledger.cli.session import with_ledger
    from podledger.queries.moments import parse_moment

    before, after = parse_moment(args.before), parse_moment(args.after)

    async def work(ledger: Ledger) -> Any:
        found = await ledger.diff(before, after)
        return found, await ledger.missing(found.until_seq)

    found, missing = with_ledger(args, work)
    if args.json:
        print_json(found.as_json())
        return
    print(f"after seq {found.from_seq} and up to seq {found.until_seq}:")
    print_table(("pod", "change", "by", "what"), map(_pod_row, found.pods), empty="no pod changed")
    _print_grants(found)
    tell_missing(missing)


def _print_grants(found: RegistryDiff) -> None:
    from podledger.cli.output import print_table

    if found.grants:
        print()
        rows = (
            (
                grant.pod_name,
                grant.change,
                _edge(grant.edge),
                f"{grant.permission}{'' if grant.recursive else '-here'}:{grant.target}",
            )
            for grant in found.grants
        )
        print_table(("grant of", "change", "by", "rule"), rows)


def _edge(edge: Edge | None) -> str:
    return f"{edge.kind} at seq {edge.seq}" if edge else ""


def _pod_row(change: PodChange) -> tuple[Any, ...]:
    edges = [_edge(edge) for edge in (change.ended, change.began) if edge]
    if change.change == "passed":
        edges.reverse()
    return (change.pod_name, change.change, ", ".join(edges), ", ".join(change.fields))


def run_gaps(args: Namespace) -> None:
    """Print what is missing."""
    from podledger.cli.output import print_json, print_table
    from podledger.cli.session import with_ledger

    gaps = with_ledger(args, lambda ledger: ledger.gaps(moment_of(args.at)))
    if args.json:
        print_json([gap.as_json() for gap in gaps])
        return
    rows = (
        (
            gap.pod_name,
            gap.source,
            str(gap.first) if gap.first == gap.last else f"{gap.first} to {gap.last}",
            gap.after_seq or "its first",
            gap.before_seq,
        )
        for gap in gaps
    )
    print_table(("sender", "incarnation", "missing", "after seq", "before seq"), rows, empty="nothing is missing")


def run_replay(args: Namespace) -> None:
    """Print what a replay would decide otherwise."""
    from podledger.cli.output import print_line, print_table, progress, tell_missing
    from podledger.cli.session import with_ledger
    from podledger.queries.replay import ReplayOptions

    plan = ReplayOptions(args.order, not args.without_stamps, moment_of(args.at))

    async def work(ledger: Ledger) -> Any:
        if args.json:
            return await _replay_json(ledger, plan)
        with progress("replay") as told:
            replayed = await ledger.replay(plan, _print_reversal, told)
            return replayed, await ledger.missing(replayed.until_seq)

    done = with_ledger(args, work)
    if args.json:
        return
    replayed, missing = done
    print_line(f"{replayed.reversals} of {replayed.until_seq} events would be decided otherwise", "bold")
    columns = ("pod", "the ledger holds", "the replay holds")
    print_table(columns, map(_otherwise_row, replayed.pods), empty="the registry would be the same")
    tell_missing(missing)


async def _replay_json(ledger: Ledger, plan: Any) -> None:
    """Print the reversals as they come: there may be as many as events."""
    import json

    between = ""

    def told(reversal: ChangedOutcome) -> None:
        nonlocal between
        print(between, json.dumps(reversal.as_json(), separators=(",", ":")), sep="", end="")
        between = ","

    without = "false" if plan.stamps else "true"
    print(f'{{"order":"{plan.order}","without_stamps":{without},"events":[', end="")
    replayed = await ledger.replay(plan, told)
    pods = json.dumps([pod.as_json() for pod in replayed.pods], separators=(",", ":"))
    print(f'],"until_seq":{replayed.until_seq},"reversals":{replayed.reversals},"pods":{pods}}}')


def _print_reversal(reversal: ChangedOutcome) -> None:
    from podledger.cli.output import print_line
    from podledger.core.text import escape

    print_line(
        f"seq {reversal.seq}  {reversal.kind} of {escape(reversal.pod_name, 60)}: "
        f"{reversal.logged} in the log, {reversal.now} in the replay"
    )


def _otherwise_row(pod: ChangedPod) -> tuple[str, str, str]:
    return (pod.pod_name, _standing(pod.logged), _standing(pod.now))


def _standing(standing: PodContent | None) -> str:
    if standing is None:
        return "nothing"
    life = f", life {standing.incarnation}" if standing.incarnation else ""
    return f"{standing.socket_path} under {standing.parent_pod} by seq {standing.opened_by}{life}"
