"""The options for the reconciler's policy, which `serve` and `reconcile` share."""

from __future__ import annotations

from argparse import Namespace

from podledger.cli.parser import Parser, at_least
from podledger.services.reconciler import ReconcilePolicy


def add_policy(parser: Parser) -> None:
    """Add the options that say when a silent pod is reclaimed."""
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=at_least(float, 0),
        default=30.0,
        help="reclaim a pod only this long after the first failed probe (default: 30)",
    )
    parser.add_argument(
        "--attempts",
        metavar="N",
        type=at_least(int, 1),
        default=3,
        help="reclaim a pod only after N failed probes in a row (default: 3)",
    )


def policy_of(args: Namespace) -> ReconcilePolicy:
    """Return the policy that the options state."""
    return ReconcilePolicy(int(args.attempts), args.grace)
