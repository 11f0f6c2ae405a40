"""A report of `podledger send` by way of a spool: append it, send what waits there, and say what became of it.

It imports neither SQLAlchemy nor pydantic nor asyncio, because `podledger send` is started for each report.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Any

from podledger.client.delivery import recorded_in
from podledger.client.frames import Answer
from podledger.client.held import HeldConnection
from podledger.client.spool import SpoolStream
from podledger.client.spooled import put, send_until, stream_for
from podledger.core.errors import SocketError
from podledger.core.stamps import Stamper
from podledger.core.text import escape

WAITS_HINT = "the spool keeps the report: it goes out with the next one, or its owner takes it in"


def send_by_spool(args: Namespace, spool: str, fields: dict[str, Any], stamper: Stamper, subject: str | None) -> None:
    """Append the report to the spool, send everything that waits in its stream, oldest first, and print the result.

    Raises:
        OSError: the report was not appended.
        SocketError: the receiver refused the report, or, with `--confirm`, did not acknowledge it in time.
    """
    stream = stream_for(spool, fields, stamper)
    place = put(stream, fields, stamper, subject)
    answers: dict[str, Answer] = {}
    connection = HeldConnection(args.socket, timeout_s=args.timeout)
    failure = send_until(
        stream, place, connection, lambda answer: answers.update({answer.id: answer}), within_s=args.timeout
    )
    connection.close()
    answer = answers.get(fields["stamp"]["id"])
    if answer is not None:
        _print_recorded(args, fields, answer)
    elif failure is not None:
        _print_waiting(args, fields, stream, failure)
    elif args.json:
        print(json.dumps({"sent": fields}, separators=(",", ":")))
    elif args.confirm:
        print(f"{args.kind} {_about(fields)}: taken from the spool; `podledger explain` shows its outcome")


def _print_recorded(args: Namespace, fields: dict[str, Any], answer: Answer) -> None:
    try:
        recorded = recorded_in(answer, args.socket)
    except OSError as error:
        raise SocketError(f"{args.socket}: {error.strerror}", hint="it lists it in `podledger rejected`") from error
    if args.json:
        result = {"seq": recorded.seq, "outcome": recorded.outcome}
        print(json.dumps({"sent": fields, "recorded": result}, separators=(",", ":")))
    elif args.confirm:
        print(f"{args.kind} {_about(fields)}: {recorded.outcome} at seq {recorded.seq}")


def _print_waiting(args: Namespace, fields: dict[str, Any], stream: SpoolStream, failure: OSError) -> None:
    reason = failure.strerror or str(failure).removeprefix(f"{args.socket}: ")
    if args.confirm:
        raise SocketError(f"{args.socket}: {reason}", hint=WAITS_HINT) from failure
    if args.json:
        print(json.dumps({"waiting": fields, "spool": stream.path, "reason": reason}, separators=(",", ":")))
    text = f"the report waits in {escape(stream.path)}, because {escape(args.socket)} did not take it: {escape(reason)}"
    print(f"podledger: {text}", file=sys.stderr)


def _about(fields: dict[str, Any]) -> str:
    return str(fields["sub_pod"] if fields["kind"] == "scope_sub_delegated" else fields["pod_name"])
