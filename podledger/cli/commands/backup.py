"""`backup`: copy the database into one file, even while it is in use."""

from __future__ import annotations

from argparse import Namespace

from podledger.archive.backup import backup
from podledger.cli.output import print_json
from podledger.cli.parser import Parser
from podledger.cli.session import database_path
from podledger.cli.terminal import progress
from podledger.core.text import escape, pluralize


def add_arguments(parser: Parser) -> None:
    """Add the target."""
    parser.add_argument("file", metavar="FILE", help="file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: Namespace) -> None:
    """Back up the database."""
    with progress("backup") as update:
        size = backup(database_path(args), args.file, overwrite=args.force, progress=update)
    if args.json:
        print_json({"file": args.file, "bytes": size})
    else:
        print(f"{pluralize(size, 'byte')} written to {escape(args.file)}")
