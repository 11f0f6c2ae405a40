"""What the demonstration shows: the tree, the log with outcomes, the notifications, the gaps and the certificate."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from podledger.cli.output import STYLES, clock, print_json, print_line, print_table, print_tree
from podledger.core.render import render
from podledger.core.text import pluralize
from podledger.queries.gaps import gaps_until
from podledger.queries.tree import children_by_parent, tree_json

if TYPE_CHECKING:
    from podledger.ledger import Ledger

NOTICE = {
    "tree": "tester died without a word, and the fallback took back what was lent to it. coder has stopped.",
    "log": "each report is kept, and its outcome says what it did: a repeated delegation is a duplicate, scout's first "
    "turn came before anyone had said that there is a scout, coder's last one after it had stopped.",
    "notifications": "one line each, whatever a pod wrote: coder's escape sequence cannot reach this terminal.",
    "gaps": "coder stamped a report that never came; nobody has to guess that it is missing.",
    "certificate": "the chain of digests is whole, and the registry is what the log says.",
}


async def show(ledger: Ledger, *, as_json: bool) -> None:
    """Print it all."""
    entries = [entry async for entry in ledger.entries()]
    notifications = await ledger.notifications()
    gaps = await ledger.read(partial(gaps_until, ledger=ledger.name, until=entries[-1].seq))
    certificate = await ledger.verify()
    seq, children = await ledger.read(partial(children_by_parent, ledger=ledger.name, at=None))
    tree = tree_json(ledger.name, seq, children)
    if as_json:
        print_json(
            {
                "tree": tree,
                "events": [entry.as_json() for entry in entries],
                "notifications": [notification.as_json() for notification in notifications],
                "gaps": [gap.as_json() for gap in gaps],
                "certificate": certificate.as_json(),
            }
        )
        return
    _heading("The tree that the ledger believes in", "tree")
    print_tree(tree)
    _heading("The log", "log")
    print_table(("seq", "recorded at", "outcome", "evidence", "event"), map(_row, entries))
    _heading("What the agent is told", "notifications")
    for notification in notifications:
        print_line(f"  {notification.line}")
    _heading("What is missing", "gaps")
    print_table(("sender", "from", "to"), ((gap.pod_name, gap.first, gap.last) for gap in gaps))
    _heading("The certificate", "certificate")
    whole = "whole" if certificate.ok else "not whole"
    print_line(f"  {whole}: {pluralize(certificate.events, 'event')}, head digest {certificate.head_digest}")


def _heading(title: str, what: str) -> None:
    print_line(f"\n{title}", "bold")
    print_line(f"Notice: {NOTICE[what]}", STYLES["revived"])


def _row(entry: Any) -> tuple[Any, ...]:
    return (entry.seq, clock(entry.recorded_us), entry.outcome, entry.evidence, render(entry.event))
