"""`init`: create the ledger of a pod, or upgrade it."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from podledger.cli.output import print_json
from podledger.cli.parser import Parser
from podledger.cli.session import database_path, settings
from podledger.core.errors import UsageError
from podledger.core.text import escape, pluralize
from podledger.host.facts import absolute
from podledger.ledger import Ledger
from podledger.server.serving import check_parent, served_socket
from podledger.store.log import Head


def add_arguments(parser: Parser) -> None:
    """Add the owner and the ledger's settings."""
    parser.add_argument("name", metavar="NAME", help="pod that owns the ledger")
    parser.add_argument("--parent-socket", metavar="PATH", help='socket of the owner\'s parent ("" for no parent)')
    parser.add_argument("--mirror", metavar="FILE", help='also keep the registry in this JSON file ("" to stop)')


def run(args: Namespace) -> None:
    """Create or upgrade the ledger, and change the settings that are given."""
    if args.ledger not in (None, args.name):
        raise UsageError(
            f"the ledger is named {args.name!r} by NAME and {args.ledger!r} by --ledger", hint="leave --ledger out"
        )
    head, path = asyncio.run(_init(args))
    if args.json:
        print_json({"ledger": head.name, "db": path, "events": head.head_seq, "head_digest": head.head_digest})
    else:
        print(f"ledger {escape(head.name)} is ready in {escape(str(path))}, with {pluralize(head.head_seq, 'event')}")


async def _init(args: Namespace) -> tuple[Head, str]:
    timeout_s = settings().busy_timeout_s
    async with Ledger.open(database_path(args), args.name, create=True, busy_timeout_s=timeout_s) as ledger:
        parent_socket = _absolute(args.parent_socket)
        check_parent(ledger.name, parent_socket, served_socket(ledger.database.place, ledger.name))
        await ledger.configure(parent_socket=parent_socket, mirror=_absolute(args.mirror))
        await ledger.write_mirror()
        return await ledger.head(), str(ledger.database.path)


def _absolute(path: str | None) -> str | None:
    """Return a path that means the same in the working folder of any later command."""
    return absolute(path) if path else path
