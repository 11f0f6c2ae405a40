"""`digest`: print a digest of the log to keep elsewhere."""

from __future__ import annotations

import time
from argparse import Namespace

from podledger.cli.output import print_json
from podledger.cli.parser import Parser
from podledger.cli.session import add_at, moment_of, with_ledger
from podledger.core.text import escape
from podledger.integrity import signing
from podledger.integrity.notes import Note
from podledger.ledger import Ledger


def add_arguments(parser: Parser) -> None:
    """Add the moment and the key."""
    add_at(parser)
    parser.add_argument("--key", metavar="FILE", help="sign with this Ed25519 private key, in PEM form")


def run(args: Namespace) -> None:
    """Print SEQ:DIGEST; with a key, a signed note."""
    key = signing.read_private_key(args.key) if args.key else None

    async def work(ledger: Ledger) -> tuple[str, Note]:
        return ledger.name, await ledger.note(moment_of(args.at))

    name, note = with_ledger(args, work)
    if key is not None:
        print_json(signing.sign(name, note, key, time.time_ns() // 1000).as_json())
    elif args.json:
        print_json({"ledger": name, **note._asdict()})
    else:
        print(escape(str(note), 100))
