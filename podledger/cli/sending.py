"""`send`: one event to any pod's socket. It imports neither SQLAlchemy nor Pydantic."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from podledger.cli.facts import add_scope, checked_incarnation
from podledger.cli.parser import Commands, Parser, at_least


def add_commands(commands: Commands) -> None:
    """send, with a sub-command for each kind of the wire."""
    send = commands.add("send", run_send, "send one event to a pod's socket")
    send.add_argument("socket", metavar="SOCKET", help="where the pod listens")
    kinds = send.add_subparsers(dest="kind", metavar="KIND", required=True, parser_class=Parser)
    for kind, fields in _POSITIONALS.items():
        told, name = _HELP[kind], kind.replace("_", "-")
        parser = kinds.add_parser(name, help=told, description=told, parents=[commands.shared])
        parser.set_defaults(kind=kind)
        for field in fields:
            parser.add_argument(field, metavar=field.upper())
        if kind == "scope_sub_delegated":
            add_scope(parser)
        _add_stamp(parser)


_POSITIONALS = {
    "turn_ended": ("pod",),
    "errored": ("pod", "message"),
    "shut_down": ("pod",),
    "scope_sub_delegated": ("parent", "sub", "sub_socket"),
}
_HELP = {
    "turn_ended": "a pod finished a turn",
    "errored": "a pod met an error",
    "shut_down": "a pod has stopped",
    "scope_sub_delegated": "a pod spawned another and lent it a scope",
}


def _add_stamp(parser: Parser) -> None:
    parser.add_argument("--no-stamp", action="store_true", help="leave the stamp out")
    parser.add_argument("--incarnation", metavar="ID", help="the life of the pod that the event is about, a UUIDv7")
    parser.add_argument("--source", metavar="ID", help="the sender's own incarnation, a UUIDv7, with --sequence")
    parser.add_argument("--sequence", metavar="N", type=at_least(int, 1), help="the sender's count of its events")
    parser.add_argument("--timeout", metavar="SECONDS", type=at_least(float, 0.001), default=5.0)


HINT = "is a pod listening there, and reading?"


def run_send(args: Namespace) -> None:
    """Send the event.

    Raises:
        SocketError: it could not be sent.
    """
    import errno

    from podledger.client import sender
    from podledger.core.errors import SocketError

    fields = _fields(args)
    if not args.no_stamp:
        fields["stamp"] = _stamp(args)
    try:
        sender.deliver(args.socket, sender.line_of(fields), timeout_s=args.timeout)
    except OSError as error:
        reason = error.strerror or str(error).removeprefix(f"{args.socket}: ") or "no answer in time"
        hints = {errno.ENAMETOOLONG: "give a shorter path, or a relative one from a folder nearby"}
        raise SocketError(f"{args.socket}: {reason}", hint=hints.get(error.errno or 0, HINT)) from error
    if args.json:
        import json

        print(json.dumps({"sent": fields}, separators=(",", ":")))


def _fields(args: Namespace) -> dict[str, Any]:
    from podledger.core.names import check_name

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
    """A stamp that claims no more than is known: the command speaks for a pod, but is not that pod.

    So without `--incarnation` the life that the event is about is left out, unless the environment names the pod in
    whose place the command runs; and the sender is this process, unless `--source` and `--sequence` say otherwise.
    """
    import os

    from podledger.core.errors import UsageError
    from podledger.core.stamps import INCARNATION_VARIABLE, Stamper, new_incarnation

    if (args.source is None) != (args.sequence is None):
        raise UsageError("--source and --sequence go together", hint="give both, or neither")
    own = None if args.kind == "scope_sub_delegated" else os.environ.get(INCARNATION_VARIABLE)
    subject = args.incarnation or own
    source = checked_incarnation(args.source) if args.source else new_incarnation()
    stamp = Stamper(source).stamp(checked_incarnation(subject) if subject else None)
    return stamp | {"sequence": args.sequence or 1}
