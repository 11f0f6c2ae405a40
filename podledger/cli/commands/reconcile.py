"""`reconcile`: probe all pods once and reclaim the dead ones."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.output import print_json, print_table
from podledger.cli.parser import Parser
from podledger.cli.policy import add_policy, policy_of
from podledger.cli.session import with_ledger
from podledger.ledger import Ledger
from podledger.services.reconciler import ProbeResult, Reconciler


def add_arguments(parser: Parser) -> None:
    """Add the policy and whether to record."""
    add_policy(parser)
    parser.add_argument("--dry-run", action="store_true", help="print what would be recorded, and record nothing")


def run(args: Namespace) -> None:
    """Run one round and print its results."""

    async def work(ledger: Ledger) -> list[ProbeResult]:
        ledger.database.check_writable()
        return await Reconciler(ledger, policy_of(args)).round(dry_run=args.dry_run)

    results = with_ledger(args, work)
    if args.json:
        print_json([result.as_json() for result in results])
        return
    header = ("pod", "socket", "verdict", "failures", "reason")
    rows = ((r.pod_name, r.socket_path, r.verdict, r.attempt or None, r.reason) for r in results)
    print_table(header, rows, empty="no pods to probe")
