"""`diff`: show the changes of the registry and the grants between two moments."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podledger.cli.output import print_json, print_missing, print_table
from podledger.cli.parser import Parser
from podledger.cli.scopes import rule_text
from podledger.cli.session import moment_of, with_ledger, with_missing
from podledger.queries.diff import Edge, GrantChange, PodChange


def add_arguments(parser: Parser) -> None:
    """Add the two moments."""
    parser.add_argument("before", metavar="X", help="earlier moment: a seq or a time")
    parser.add_argument("after", metavar="Y", help="later moment")


def run(args: Namespace) -> None:
    """Print the pods and the grants that changed."""
    before, after = moment_of(args.before), moment_of(args.after)
    if args.json:
        print_json(with_ledger(args, lambda ledger: ledger.diff(before, after)).as_json())
        return
    found, missing = with_ledger(args, lambda ledger: with_missing(ledger, lambda at: ledger.diff(before, at), after))
    print(f"after seq {found.from_seq} and up to seq {found.until_seq}:")
    print_table(("pod", "change", "by", "what"), map(_pod_row, found.pods), empty="no pod changed")
    if found.grants:
        print()
        print_table(("grant of", "change", "by", "rule"), map(_grant_row, found.grants), empty="no grant changed")
    print_missing(missing)


def _pod_row(change: PodChange) -> tuple[Any, ...]:
    edges = [_edge(edge) for edge in (change.ended, change.began) if edge]
    if change.change == "passed":
        edges.reverse()
    return (change.pod_name, change.change, ", ".join(edges), ", ".join(change.fields))


def _grant_row(grant: GrantChange) -> tuple[Any, ...]:
    rule = rule_text(grant.target, grant.permission, grant.recursive)
    return (grant.pod_name, grant.change, _edge(grant.edge), rule)


def _edge(edge: Edge | None) -> str:
    return f"{edge.kind} at seq {edge.seq}" if edge else ""
