"""`export`: write the log as JSON lines."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from podledger.archive.transfer import export_lines
from podledger.cli.output import print_json
from podledger.cli.parser import Parser
from podledger.cli.session import with_ledger
from podledger.cli.terminal import progress
from podledger.core.text import escape, pluralize
from podledger.ledger import Ledger
from podledger.store.files import replacing


def add_arguments(parser: Parser) -> None:
    """Add the target."""
    parser.add_argument("file", metavar="FILE", help="file to write or replace; - for standard output")


def run(args: Namespace) -> None:
    """Export the log."""
    count = with_ledger(args, lambda ledger: _export(ledger, args.file))
    if args.file == "-":
        return
    if args.json:
        print_json({"file": args.file, "events": count})
    else:
        print(f"{pluralize(count, 'event')} written to {escape(args.file)}")


async def _export(ledger: Ledger, file: str) -> int:
    if file == "-":
        count = await _write(ledger, _Shown() if sys.stdout.isatty() else sys.stdout.buffer, prints=True)
        sys.stdout.flush()
        return count
    with replacing(file, ledger.database.place) as stream:
        return await _write(ledger, stream, prints=False)


class _Shown:
    """Standard output that is a terminal: the lines go to its text stream, which escapes control characters."""

    def write(self, line: bytes) -> None:
        sys.stdout.write(line.decode())


async def _write(ledger: Ledger, stream: Any, *, prints: bool) -> int:
    count, total = 0, (await ledger.head()).head_seq
    with progress("export", prints=prints) as update:
        async for line in export_lines(ledger):
            stream.write(line)
            count += 1
            if update and count % 1000 == 0:
                update(count, total)
    return count
