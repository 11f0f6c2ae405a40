"""`send`: send one report to the socket of a pod.

It is started for each report, so it imports neither SQLAlchemy nor pydantic nor asyncio.
"""

from __future__ import annotations

import errno
import json
import os
from argparse import Namespace
from typing import Any, Final, NamedTuple

from podledger.cli.incarnations import checked_incarnation
from podledger.cli.parser import Parser, at_least, shared_options
from podledger.cli.scopes import add_scope
from podledger.client import sender
from podledger.core.errors import SocketError, UsageError
from podledger.core.names import check_name
from podledger.core.stamps import INCARNATION_VARIABLE, Stamper, new_incarnation


class Kind(NamedTuple):
    """One kind of report: its help and its positional arguments."""

    help: str
    fields: tuple[str, ...]


KINDS: Final = {
    "turn_ended": Kind("report that a pod finished a turn", ("pod",)),
    "errored": Kind("report that a pod met an error", ("pod", "message")),
    "shut_down": Kind("report that a pod stopped", ("pod",)),
    "scope_sub_delegated": Kind(
        "report that a pod spawned another and lent it a scope", ("parent", "sub", "sub_socket")
    ),
}
HINT: Final = "check that a pod listens there and reads"
LONG_PATH_HINT: Final = "give a shorter path, or a relative one from a folder nearby"


def add_arguments(parser: Parser) -> None:
    """Add the socket, and a sub-command for each kind of report."""
    parser.add_argument("socket", metavar="SOCKET", help="socket of the pod that receives the report")
    subparsers = parser.add_subparsers(
        title="kinds of report", dest="kind", metavar="KIND", required=True, parser_class=Parser
    )
    for kind, (text, fields) in KINDS.items():
        name = kind.replace("_", "-")
        sub = subparsers.add_parser(name, help=text, description=f"R{text[1:]}.", parents=[shared_options()])
        sub.set_defaults(kind=kind)
        for field in fields:
            sub.add_argument(field, metavar=field.upper())
        if kind == "scope_sub_delegated":
            add_scope(sub)
        _add_stamp(sub)


def _add_stamp(parser: Parser) -> None:
    parser.add_argument("--no-stamp", action="store_true", help="send no stamp")
    parser.add_argument("--incarnation", metavar="ID", help="incarnation of the pod that the report is about, a UUIDv7")
    parser.add_argument("--source", metavar="ID", help="the sender's stream, a UUIDv7; needs --sequence")
    parser.add_argument(
        "--sequence", metavar="N", type=at_least(int, 1), help="number of this report in the stream; needs --source"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=at_least(float, 0.001), default=5.0, help="give up after this (default: 5)"
    )


def run(args: Namespace) -> None:
    """Send the report.

    Raises:
        SocketError: it could not be sent.
    """
    fields = _fields(args)
    if not args.no_stamp:
        fields["stamp"] = _stamp(args)
    try:
        sender.deliver(args.socket, sender.line_of(fields), timeout_s=args.timeout)
    except OSError as error:
        reason = error.strerror or str(error).removeprefix(f"{args.socket}: ") or "no answer in time"
        hint = LONG_PATH_HINT if error.errno == errno.ENAMETOOLONG else HINT
        raise SocketError(f"{args.socket}: {reason}", hint=hint) from error
    if args.json:
        print(json.dumps({"sent": fields}, separators=(",", ":")))


def _fields(args: Namespace) -> dict[str, Any]:
    if args.kind != "scope_sub_delegated":
        fields = {"kind": args.kind, "pod_name": check_name(args.pod)}
        return fields | ({"message": args.message} if args.kind == "errored" else {})
    return {
        "kind": args.kind,
        "parent_pod": check_name(args.parent),
        "sub_pod": check_name(args.sub),
        "sub_socket": args.sub_socket,
        "scope": args.scope,
    }


def _stamp(args: Namespace) -> dict[str, Any]:
    """Return a stamp that claims no more than is known: this process reports for a pod, but is not that pod.

    The stamp names an incarnation only if `--incarnation` or the environment does. The stream is this process's own,
    unless `--source` and `--sequence` state another.
    """
    if (args.source is None) != (args.sequence is None):
        raise UsageError("--source and --sequence go together", hint="give both, or neither")
    own = None if args.kind == "scope_sub_delegated" else os.environ.get(INCARNATION_VARIABLE)
    subject = args.incarnation or own
    source = checked_incarnation(args.source) if args.source else new_incarnation()
    stamp = Stamper(source).stamp(checked_incarnation(subject) if subject else None)
    return stamp | {"sequence": args.sequence or 1}
