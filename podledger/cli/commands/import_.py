"""`import`: append events from JSON lines."""

from __future__ import annotations

import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from podledger.archive.transfer import MAX_LINE_BYTES, Imported, import_lines, read_lines
from podledger.cli.output import print_json
from podledger.cli.parser import Parser
from podledger.cli.session import with_ledger
from podledger.cli.terminal import progress
from podledger.core.errors import StorageError, UsageError
from podledger.core.text import escape, pluralize
from podledger.ledger import Ledger
from podledger.store.sqlite.files import application_id


def add_arguments(parser: Parser) -> None:
    """Add the source."""
    parser.add_argument(
        "file", metavar="FILE", help="file of wire lines, event objects or exported entries; - for standard input"
    )


def run(args: Namespace) -> int:
    """Import the lines; return 1 if one was rejected."""
    done = with_ledger(args, lambda ledger: _import(ledger, args.file))
    for number, reason in done.problems:
        print(f"podledger: line {number}: {escape(reason)}", file=sys.stderr)
    if args.json:
        print_json(done.as_json())
    else:
        print(_summary(done))
    return 1 if done.problems else 0


async def _import(ledger: Ledger, file: str) -> Imported:
    done = Imported()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's own would wait for the next line to come
    try:
        with progress("import") as update:
            async for done in import_lines(ledger, read_lines(_lines(file), ledger.name)):
                if update:
                    update(done.appended + done.restored + done.present, 0)
    except KeyboardInterrupt:
        print(f"podledger: interrupted: {_summary(done)}; the other lines were not imported", file=sys.stderr)
        raise
    return done


def _summary(done: Imported) -> str:
    return (
        f"{pluralize(done.appended, 'event')} appended, {done.restored} restored, {done.present} there already; "
        f"{pluralize(done.skipped, 'line')} skipped, {len(done.problems)} rejected"
    )


def _lines(file: str) -> Iterator[bytes]:
    """Yield the lines of a file, each cut a little beyond the greatest length that is accepted."""
    if file != "-" and application_id(Path(file)):
        hint = "export it first, or copy its ledgers with `podledger collect`"
        raise UsageError(f"{file} is a database, not a file of lines", hint=hint)
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 2):
                yield line
                while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES)
                    if not line:
                        break
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}", hint="give a file that you can read, or -") from error
