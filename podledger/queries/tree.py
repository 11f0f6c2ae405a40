"""The tree of open pods: each under its nearest open ancestor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection

from podledger.queries.lineage import lineage, nearest_open
from podledger.queries.moments import Moment, resolve
from podledger.queries.registry import Pod, pods_at

MAX_DRAWN: Final = 100
"""How deep a tree is drawn; deeper pods appear next to their ancestor of that depth."""


def children_by_parent(connection: Connection, ledger: str, at: Moment) -> tuple[int, dict[int | None, list[Pod]]]:
    """Return the seq of a moment, and its pods by the `from_seq` of their nearest open ancestor (None: the owner)."""
    seq = resolve(connection, ledger, at)
    pods = pods_at(connection, ledger, seq)
    lines = lineage(connection, ledger, seq, [(pod.pod_name, pod.from_seq) for pod in pods])
    tree: dict[int | None, list[Pod]] = defaultdict(list)
    for pod in pods:
        parent = nearest_open(lines[pod.from_seq])
        tree[parent.from_seq if parent else None].append(pod)
    return seq, dict(tree)


def tree_json(owner: str, seq: int, children: dict[int | None, list[Pod]]) -> dict[str, Any]:
    """Return the tree as `pods --tree --json` prints it: the owner, and under each pod its children.

    Every pod appears once. Of pods that are each other's ancestors, the first to open appears under the owner.
    """
    root: dict[str, Any] = {"pod_name": owner, "seq": seq, "children": []}
    placed: set[int] = set()
    _place(root, children.get(None, []), children, placed)
    for pod in sorted((pod for pods in children.values() for pod in pods), key=lambda pod: pod.from_seq):
        _place(root, [pod], children, placed)
    return root


def _place(root: dict[str, Any], pods: Sequence[Pod], children: dict[int | None, list[Pod]], placed: set[int]) -> None:
    """Put the pods that have no place yet under a node, each with all below it."""
    waiting = [(root, pods, 1)]
    while waiting:
        above, pods, depth = waiting.pop()
        for pod in pods:
            if pod.from_seq in placed:
                continue
            placed.add(pod.from_seq)
            node = pod.as_json() | {"children": []}
            above["children"].append(node)
            waiting.append((node if depth < MAX_DRAWN else above, children.get(pod.from_seq, []), depth + 1))
