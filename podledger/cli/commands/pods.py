"""`pods`: list the pods of the registry, now or at a past moment."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

from podledger.cli.output import clock, print_json, print_missing, print_table, print_tree
from podledger.cli.parser import Parser
from podledger.cli.scopes import rule_text
from podledger.cli.session import add_at, moment_of, with_ledger, with_missing
from podledger.core.errors import UsageError
from podledger.ledger import Ledger
from podledger.queries.moments import Moment
from podledger.queries.registry import Pod
from podledger.queries.tree import children_by_parent, tree_json


def add_arguments(parser: Parser) -> None:
    """Add the moment, and the choice of pods to list."""
    add_at(parser)
    parser.add_argument("--all", action="store_true", help="also list the tenures that had ended by then")
    parser.add_argument(
        "--tree", action="store_true", help="print a tree, with each pod under its nearest living ancestor"
    )


def run(args: Namespace) -> None:
    """Print the registry."""
    at = moment_of(args.at)
    if args.tree:
        _run_tree(args, at)
    elif args.json:
        print_json([pod.as_json() for pod in with_ledger(args, lambda ledger: ledger.pods(at, closed=args.all))])
    else:
        pods, missing = with_ledger(
            args, lambda ledger: with_missing(ledger, lambda at: ledger.pods(at, closed=args.all), at)
        )
        header = ("pod", "parent", "socket", "scope", "since seq", "since (UTC)")
        ended = ("until seq", "until (UTC)", "closed by") if args.all else ()
        rows = (_row(pod, whole=args.all) for pod in pods)
        print_table((*header, *ended, "evidence"), rows, empty="no pods")
        print_missing(missing)


def _row(pod: Pod, *, whole: bool) -> tuple[Any, ...]:
    rules = " ".join(rule_text(rule.target, rule.permission, rule.recursive) for rule in pod.scope_delegated)
    ended = (pod.until_seq, clock(pod.until_us), pod.closed_by) if whole else ()
    since = (pod.from_seq, clock(pod.since_us))
    return (pod.pod_name, pod.parent_pod, pod.socket_path, rules, *since, *ended, pod.evidence)


def _run_tree(args: Namespace, at: Moment) -> None:
    if args.all:
        raise UsageError("--tree shows only open tenures and --all asks for others", hint="leave one of them out")

    async def tree(ledger: Ledger, at: Moment) -> dict[str, Any]:
        seq, children = await ledger.read(partial(children_by_parent, ledger=ledger.name, at=at))
        return tree_json(ledger.name, seq, children)

    if args.json:
        print_json(with_ledger(args, lambda ledger: tree(ledger, at)))
        return
    root, missing = with_ledger(args, lambda ledger: with_missing(ledger, partial(tree, ledger), at))
    print_tree(root)
    print_missing(missing)
