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
from podledger.cli.spooled import send_by_spool
from podledger.client import sender
from podledger.client.spooled import spool_for
from podledger.core.errors import SocketError, UsageError
from podledger.core.names import check_name
from podledger.core.stamps import INCARNATION_VARIABLE, POD_VARIABLE, SOCKET_VARIABLE, Stamper


class Kind(NamedTuple):
    """One kind of report: its help and its positional arguments, of which the first, the reporting pod, is optional."""

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
CONFIRM_HINTS: Final = {
    errno.EOPNOTSUPP: "send it without --confirm",
    errno.EBADMSG: "the receiver lists it in `podledger rejected`",
}
UNCONFIRMED_HINT: Final = "look for it with `podledger events` at the receiver: it may be recorded all the same"
LONG_PATH_HINT: Final = "give a shorter path, or a relative one from a folder nearby"


def add_arguments(parser: Parser) -> None:
    """Add the socket, and a sub-command for each kind of report."""
    parser.usage = "podledger send [SOCKET] KIND ..."
    parser.add_argument(
        "socket", metavar="SOCKET", help=f"socket of the pod that receives the report (default: ${SOCKET_VARIABLE})"
    )
    subparsers = parser.add_subparsers(
        title="kinds of report", dest="kind", metavar="KIND", required=True, parser_class=Parser
    )
    for kind, (text, fields) in KINDS.items():
        name = kind.replace("_", "-")
        sub = subparsers.add_parser(name, help=text, description=f"R{text[1:]}.", parents=[shared_options()])
        sub.set_defaults(kind=kind)
        own, *others = fields
        sub.add_argument(own, metavar=own.upper(), nargs="?", help=f"the pod that reports (default: ${POD_VARIABLE})")
        for field in others:
            sub.add_argument(field, metavar=field.upper())
        if kind == "scope_sub_delegated":
            add_scope(sub)
        _add_stamp(sub)


def complete(words: list[str]) -> list[str]:
    """Add the socket that the parent passed to the pod, if the command line begins with the kind."""
    kind = next((position for position, word in enumerate(words) if not word.startswith("-")), None)
    if kind is None or words[kind].replace("-", "_") not in KINDS:
        return words
    socket = os.environ.get(SOCKET_VARIABLE)
    if not socket:
        raise UsageError("the report has no socket", hint=f"give SOCKET before the kind, or set {SOCKET_VARIABLE}")
    return [*words[:kind], socket, *words[kind:]]


def _add_stamp(parser: Parser) -> None:
    parser.add_argument("--no-stamp", action="store_true", help="send no stamp")
    parser.add_argument("--incarnation", metavar="ID", help="incarnation of the pod that the report is about, a UUIDv7")
    parser.add_argument("--source", metavar="ID", help="the sender's stream, a UUIDv7; needs --sequence")
    parser.add_argument(
        "--sequence", metavar="N", type=at_least(int, 1), help="number of this report in the stream; needs --source"
    )
    parser.add_argument(
        "--confirm", action="store_true", help="wait until the receiver has recorded the report, and print its outcome"
    )
    parser.add_argument(
        "--spool", metavar="DIR", help="keep the report in this folder until it is recorded (default: $PODLEDGER_SPOOL)"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=at_least(float, 0.001), default=5.0, help="give up after this (default: 5)"
    )


def run(args: Namespace) -> None:
    """Send the report; with `--confirm`, print the outcome that the receiver recorded.

    Raises:
        OSError: the spool cannot be written.
        SocketError: it could not be sent, or the receiver did not confirm it.
    """
    fields = _fields(args)
    if args.no_stamp:
        if args.confirm or args.spool:
            wanted = "--confirm" if args.confirm else "--spool"
            raise UsageError(f"{wanted} needs a stamp", hint="leave out --no-stamp")
    else:
        stamper, subject = _stamper(args, fields.get("pod_name"))
        if args.sequence:
            fields["stamp"] = stamper.stamp_at(stamper.source, args.sequence, subject)
        if (spool := spool_for(args.socket, args.spool)) is not None:
            send_by_spool(args, spool, fields, stamper, subject)
            return
        fields.setdefault("stamp", stamper.stamp(subject))
    try:
        recorded = _send(args, fields)
    except OSError as error:
        reason = error.strerror or str(error).removeprefix(f"{args.socket}: ") or "no answer in time"
        raise SocketError(f"{args.socket}: {reason}", hint=_hint(args, error)) from error
    if args.json:
        print(json.dumps({"sent": fields} | recorded, separators=(",", ":")))
    elif recorded:
        about = fields["sub_pod"] if args.kind == "scope_sub_delegated" else fields["pod_name"]
        print(f"{args.kind} {about}: {recorded['recorded']['outcome']} at seq {recorded['recorded']['seq']}")


def _send(args: Namespace, fields: dict[str, Any]) -> dict[str, Any]:
    """Send the report; with `--confirm`, return the seq and the outcome that the receiver recorded."""
    if not args.confirm:
        sender.deliver(args.socket, sender.line_of(fields), timeout_s=args.timeout)
        return {}
    fields["stamp"]["ack"] = True
    stamp_id = fields["stamp"]["id"]
    answer = sender.deliver_confirmed(args.socket, sender.line_of(fields), stamp_id, timeout_s=args.timeout)
    return {"recorded": {"seq": answer.seq, "outcome": answer.outcome}}


def _hint(args: Namespace, error: OSError) -> str:
    if error.errno == errno.ENAMETOOLONG:
        return LONG_PATH_HINT
    if not args.confirm:
        return HINT
    return CONFIRM_HINTS.get(error.errno or 0, UNCONFIRMED_HINT if isinstance(error, TimeoutError) else HINT)


def _fields(args: Namespace) -> dict[str, Any]:
    if args.kind != "scope_sub_delegated":
        fields = {"kind": args.kind, "pod_name": _own_name(args.pod)}
        return fields | ({"message": args.message} if args.kind == "errored" else {})
    return {
        "kind": args.kind,
        "parent_pod": _own_name(args.parent),
        "sub_pod": check_name(args.sub),
        "sub_socket": args.sub_socket,
        "scope": args.scope,
    }


def _own_name(given: str | None) -> str:
    name = given or os.environ.get(POD_VARIABLE)
    if not name:
        raise UsageError("the reporting pod has no name", hint=f"give it after the kind, or set {POD_VARIABLE}")
    return check_name(name)


def _stamper(args: Namespace, pod_name: str | None) -> tuple[Stamper, str | None]:
    """Return what stamps a report about `pod_name`, None for a delegation, and its subject; neither claims too much.

    The subject is `--incarnation`, or the incarnation in the environment if the report is about that pod. The stream is
    this process's own, unless `--source` and `--sequence` state another.
    """
    if (args.source is None) != (args.sequence is None):
        raise UsageError("--source and --sequence go together", hint="give both, or neither")
    own = checked_incarnation(os.environ[INCARNATION_VARIABLE]) if os.environ.get(INCARNATION_VARIABLE) else None
    is_own = pod_name is not None and os.environ.get(POD_VARIABLE) in (None, "", pod_name)
    subject = checked_incarnation(args.incarnation) if args.incarnation else own if is_own else None
    source = checked_incarnation(args.source) if args.source else None
    return Stamper(source, speaker=own), subject
