"""The owner's own facts: its ledger, the children that it spawned, reaped or gave up."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands, at_least, non_empty
from podledger.core.text import escape, pluralize

if TYPE_CHECKING:
    from podledger.core.entries import Entry
    from podledger.core.events import Evidence, LedgerEvent
    from podledger.ledger import Ledger


CLEAR = ("applied", "noted", "confirmed", "revived")
"""The outcomes that need no explanation."""


def add_commands(commands: Commands) -> None:
    """init, spawned, exited, release."""
    init = commands.add("init", run_init, "make or upgrade the database and the ledger of a pod")
    init.add_argument("name", metavar="NAME", help="the pod that owns the ledger")
    init.add_argument("--parent-socket", metavar="PATH", help='where its parent listens ("" for no parent)')
    init.add_argument("--mirror", metavar="FILE", help='keep the registry in this JSON file too ("" for none)')

    spawned = commands.add("spawned", run_spawned, "record that the owner spawned a child")
    spawned.add_argument("pod", metavar="POD")
    spawned.add_argument("--socket", metavar="PATH", type=non_empty, required=True, help="where the child listens")
    add_scope(spawned)
    spawned.add_argument("--callback", metavar="PATH", default="", help="where the child reports to")
    spawned.add_argument("--pid", type=at_least(int, 1), metavar="N")
    spawned.add_argument("--incarnation", metavar="ID", help="this life of the child, a UUIDv7")

    exited = commands.add("exited", run_exited, "record that the owner reaped a child")
    exited.add_argument("pod", metavar="POD")
    how = exited.add_mutually_exclusive_group(required=True)
    how.add_argument("--code", type=int, metavar="N", help="its exit code")
    how.add_argument("--signal", type=int, metavar="N", help="the signal that ended it")

    release = commands.add("release", run_release, "take back what was lent to a pod that is gone")
    release.add_argument("pod", metavar="POD")
    release.add_argument("--reason", metavar="TEXT", required=True)


def add_scope(parser: Any) -> None:
    """The option that states a scope."""
    parser.add_argument(
        "--scope",
        metavar="RULE",
        action="append",
        default=[],
        type=scope_rule,
        help="read:PATH or write:PATH, as often as need be; read-here: and write-here: reach the path and its "
        "direct children alone",
    )


def scope_rule(text: str) -> dict[str, Any]:
    """One rule of a scope, as the wire has it."""
    word, colon, target = text.partition(":")
    permission, _, here = word.partition("-")
    if not colon or not target or permission not in ("read", "write") or here not in ("", "here"):
        raise ArgumentTypeError(f"{text!r} is no rule: give read:PATH or write:PATH (or write-here:PATH)")
    return {"target": target, "permission": permission, "recursive": not here}


def run_init(args: Namespace) -> None:
    """Make or upgrade the ledger, and set what is given."""
    import asyncio

    from podledger.cli.output import print_json
    from podledger.cli.session import open_ledger
    from podledger.core.errors import UsageError

    if args.ledger not in (None, args.name):
        raise UsageError(f"init makes {args.name!r}, and --ledger says {args.ledger!r}", hint="leave --ledger out")

    async def work() -> Any:
        async with open_ledger(args, name=args.name) as ledger:
            await ledger.configure(parent_socket=_absolute(args.parent_socket), mirror=_absolute(args.mirror))
            await ledger.write_mirror()
            return await ledger.head(), str(ledger.database.path)

    head, path = asyncio.run(work())
    if args.json:
        print_json({"ledger": head.name, "db": path, "events": head.head_seq, "head_digest": head.head_digest})
    else:
        print(f"ledger {head.name} is ready in {path}, with {pluralize(head.head_seq, 'event')}")


def _absolute(path: str | None) -> str | None:
    """A path that means the same in whatever folder the next command runs."""
    from pathlib import Path

    return str(Path(path).absolute()) if path else path


def run_spawned(args: Namespace) -> None:
    """Record a spawn."""
    fields: dict[str, Any] = {
        "kind": "pod_spawned",
        "pod_name": args.pod,
        "socket_path": args.socket,
        "scope": args.scope,
        "callback_address": args.callback,
        "pid": args.pid,
    }
    if args.incarnation:
        from podledger.core.fields import Stamp

        fields["stamp"] = Stamp.naming(checked_incarnation(args.incarnation)).model_dump()
    _record(args, fields)


def run_exited(args: Namespace) -> None:
    """Record an exit."""
    _record(args, {"kind": "pod_exited", "pod_name": args.pod, "exit_code": args.code, "signal": args.signal})


def run_release(args: Namespace) -> None:
    """Record that a person reclaimed a pod."""
    _record(args, {"kind": "pod_reclaimed", "pod_name": args.pod, "reason": args.reason}, evidence="observed")


def checked_incarnation(text: str) -> str:
    """The incarnation in lower case.

    Raises:
        UsageError: it is no UUIDv7.
    """
    import uuid

    from podledger.core.errors import UsageError

    try:
        incarnation = uuid.UUID(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no incarnation", hint="give a UUIDv7") from error
    if incarnation.version != 7:
        raise UsageError(f"{text!r} is no UUIDv7", hint="give the incarnation that the pod was spawned with")
    return str(incarnation)


def _record(args: Namespace, fields: dict[str, Any], evidence: Evidence | None = None) -> None:
    from podledger.cli.output import print_json
    from podledger.cli.session import with_ledger
    from podledger.core.errors import UsageError

    event = _event(fields)

    async def work(ledger: Ledger) -> tuple[Entry, str]:
        if event.about == ledger.name and event.kind == "pod_spawned":
            raise UsageError(f"{ledger.name!r} owns this ledger: it spawns others", hint="name the child")
        entry = await ledger.append(event, evidence=evidence)
        return entry, "" if args.json or entry.outcome in CLEAR else await _why(ledger, entry)

    entry, why = with_ledger(args, work)
    if args.json:
        print_json(entry.as_json())
    else:
        because = f": {why.removeprefix(f'{entry.outcome}: ')}" if why else ""
        print(f"{entry.kind} {escape(entry.pod_name)}: {entry.outcome} at seq {entry.seq}{because}")


async def _why(ledger: Ledger, entry: Entry) -> str:
    """Why a fact had the outcome that it had."""
    because = ""
    async for explained in ledger.explain(entry.pod_name, at=entry.seq):
        because = explained.because
    return because


def _event(fields: dict[str, Any]) -> LedgerEvent:
    from podledger.core.errors import InvalidEventError, ProtocolError
    from podledger.core.events import event_from

    try:
        return event_from({name: value for name, value in fields.items() if value is not None})
    except ProtocolError as error:
        raise InvalidEventError(error.message, hint="correct the argument") from error
