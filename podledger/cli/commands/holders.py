"""`holders`: show which pods can write a path."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.output import print_json, print_missing, print_table
from podledger.cli.parser import Parser, non_empty
from podledger.cli.scopes import rule_text
from podledger.cli.session import add_at, moment_of, with_ledger
from podledger.host.facts import absolute
from podledger.queries.holders import Holder


def add_arguments(parser: Parser) -> None:
    """Add the path and the moment."""
    parser.add_argument("path", metavar="PATH", type=non_empty, help="path of a file or a folder; it need not exist")
    add_at(parser)


def run(args: Namespace) -> None:
    """Print the holders, each with its chain of delegation."""
    at = moment_of(args.at)
    path = absolute(args.path)
    holders, missing = with_ledger(args, lambda ledger: ledger.holders_with_missing(path, at))
    if args.json:
        found = [holder.as_json() for holder in holders]
        print_json({"path": path, "holders": found, "gaps": missing._asdict()})
        return
    rows = ((holder.pod_name, _grant(holder), " > ".join(holder.chain)) for holder in holders)
    print_table(("pod", "by its grant", "chain of delegation"), rows, empty="no pod that this database shows")
    print_missing(missing)


def _grant(holder: Holder) -> str:
    if holder.target is None:
        return "owner: no other pod holds it"
    return rule_text(holder.target, "write", holder.recursive)
