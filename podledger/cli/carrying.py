"""Carrying a ledger in and out of files."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands
from podledger.core.text import escape, pluralize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podledger.archive.transfer import Imported
    from podledger.ledger import Ledger


def add_commands(commands: Commands) -> None:
    """import, export, backup, collect, bundle."""
    take = commands.add("import", run_import, "append the events of a file, one a line")
    take.add_argument("file", metavar="FILE", help="wire lines, bare events or exported entries; - for standard input")
    give = commands.add("export", run_export, "write the log, one entry a line")
    give.add_argument("file", metavar="FILE", help="where to; - for standard output")

    backup = commands.add("backup", run_backup, "copy the database into one file, also while it is written")
    backup.add_argument("file", metavar="FILE", help="where to")
    backup.add_argument("--force", action="store_true", help="replace the file that is there")

    collect = commands.add("collect", run_collect, "bring the ledgers of several databases into one")
    collect.add_argument("sources", metavar="DB", nargs="+", help="a database that holds one or more of them")
    collect.add_argument("--into", metavar="DB", required=True, help="the database that gets them, made if need be")

    bundle = commands.add("bundle", run_bundle, "write a slice of the ledger into one file, for reading and checking")
    bundle.add_argument("file", metavar="FILE", help="where to")
    bundle.add_argument("--pod", metavar="NAME", help="only this pod and all below it")
    bundle.add_argument("--since", metavar="X", help="from this seq or time on")
    bundle.add_argument("--until", metavar="X", help="up to and with this seq or time")
    bundle.add_argument("--force", action="store_true", help="replace the file that is there")


def run_import(args: Namespace) -> int:
    """Import a file; 1 where a line was rejected."""
    import sys

    from podledger.cli.output import print_json
    from podledger.cli.session import with_ledger

    done = with_ledger(args, lambda ledger: _import(ledger, args.file))
    for number, reason in done.problems:
        print(f"podledger: line {number}: {escape(reason)}", file=sys.stderr)
    if args.json:
        print_json(done.as_json())
    else:
        print(_told(done))
    return 1 if done.problems else 0


async def _import(ledger: Ledger, file: str) -> Imported:
    import signal
    import sys

    from podledger.archive.transfer import Imported, import_lines, read_lines
    from podledger.cli.output import progress

    done = Imported()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's own would wait for the next line to come
    try:
        with progress("import") as told:
            async for done in import_lines(ledger, read_lines(_lines(file), ledger.name)):
                if told:
                    told(done.appended + done.restored + done.present, 0)
    except KeyboardInterrupt:
        print(f"podledger: interrupted: {_told(done)}; the rest was not taken", file=sys.stderr)
        raise
    return done


def _told(done: Imported) -> str:
    return (
        f"{pluralize(done.appended, 'event')} appended, {done.restored} restored, {done.present} there already; "
        f"{pluralize(done.skipped, 'line')} skipped, {len(done.problems)} rejected"
    )


def _lines(file: str) -> Iterator[bytes]:
    """The lines of a file, none longer in memory than what is taken."""
    import sys
    from pathlib import Path

    from podledger.archive.transfer import MAX_LINE_BYTES
    from podledger.core.errors import StorageError, UsageError
    from podledger.store.schema import application_id

    if file != "-" and application_id(Path(file)):
        hint = "export it first; to bring ledgers together there is `podledger collect`"
        raise UsageError(f"{file} is a database, and no file of lines", hint=hint)
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 2):
                yield line
                while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES)
                    if not line:
                        break
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}", hint="give a file that can be read, or -") from error


def run_export(args: Namespace) -> None:
    """Export the log."""
    from podledger.cli.output import print_json
    from podledger.cli.session import with_ledger

    count = with_ledger(args, lambda ledger: _export(ledger, args.file))
    if args.file == "-":
        return
    if args.json:
        print_json({"file": args.file, "events": count})
    else:
        print(f"{pluralize(count, 'event')} written to {args.file}")


async def _export(ledger: Ledger, file: str) -> int:
    import sys

    from podledger.archive.transfer import export_lines
    from podledger.cli.output import progress
    from podledger.store.files import replacing

    count, total = 0, (await ledger.head()).head_seq

    async def write(stream: Any) -> None:
        nonlocal count
        with progress("export") as told:
            async for line in export_lines(ledger):
                stream.write(line)
                count += 1
                if told and count % 1000 == 0:
                    told(count, total)

    if file == "-":
        await write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with replacing(file, ledger.database.place) as stream:
            await write(stream)
    return count


def run_backup(args: Namespace) -> None:
    """Back the database up."""
    from podledger.archive import backup
    from podledger.cli.output import print_json, progress
    from podledger.cli.session import settings
    from podledger.store.database import locate

    with progress("backup") as told:
        size = backup.backup(locate(args.db or settings().db), args.file, overwrite=args.force, progress=told)
    if args.json:
        print_json({"file": args.file, "bytes": size})
    else:
        print(f"{pluralize(size, 'byte')} written to {escape(args.file)}")


def run_collect(args: Namespace) -> None:
    """Collect ledgers."""
    import asyncio

    from podledger.archive.collect import collect
    from podledger.cli.output import print_json, print_table, progress

    with progress("collect") as told:
        collected = asyncio.run(collect(args.sources, args.into, told))
    if args.json:
        print_json([one.as_json() for one in collected])
    else:
        print_table(("ledger", "from", "new events", "new rejected lines", "events now"), collected, empty="no ledgers")


def run_bundle(args: Namespace) -> None:
    """Make a bundle."""
    from podledger.bundle.request import BundleRequest
    from podledger.cli.output import print_json, progress
    from podledger.cli.reading import moment_of
    from podledger.cli.session import with_ledger

    wanted = BundleRequest(args.pod, moment_of(args.since), moment_of(args.until))
    with progress("bundle") as told:
        done = with_ledger(args, lambda ledger: ledger.bundle(args.file, wanted, overwrite=args.force, progress=told))
    if args.json:
        print_json({"file": args.file, **done.as_json()})
        return
    what = done.scope
    pods = "all pods" if what.pods is None else ", ".join(escape(pod, 60) for pod in sorted(what.pods)[:10])
    more = "" if what.pods is None or len(what.pods) <= 10 else f" and {len(what.pods) - 10} more"
    print(
        f"{pods}{more}; seq {what.since_seq} to {what.until_seq}: {done.shown} of {done.entries} entries shown, ",
        end="",
    )
    print(f"{done.gaps} known gaps, head {done.entries}:{done.head_digest}")
