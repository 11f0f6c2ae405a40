"""`spawned`: record that the owner spawned a child."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podledger.cli.facts import record
from podledger.cli.incarnations import checked_incarnation
from podledger.cli.parser import Parser, at_least, non_empty
from podledger.cli.scopes import add_scope
from podledger.core.fields import Stamp


def add_arguments(parser: Parser) -> None:
    """Add the child, and the scope and socket that it was spawned with."""
    parser.add_argument("pod", metavar="POD", help="name of the child")
    parser.add_argument("--socket", metavar="PATH", type=non_empty, help="socket of the child, if it has one")
    add_scope(parser)
    parser.add_argument("--callback", metavar="PATH", default="", help="socket to which the child reports")
    parser.add_argument("--pid", type=at_least(int, 1), metavar="N", help="process of the child")
    parser.add_argument("--incarnation", metavar="ID", help="incarnation of the child, a UUIDv7")


def run(args: Namespace) -> None:
    """Record the spawn."""
    fields: dict[str, Any] = {
        "kind": "pod_spawned",
        "pod_name": args.pod,
        "socket_path": args.socket or "",
        "scope": args.scope,
        "callback_address": args.callback,
        "pid": args.pid,
    }
    if args.incarnation:
        fields["stamp"] = Stamp.naming(checked_incarnation(args.incarnation)).model_dump()
    record(args, fields)
