"""`serve` and `reconcile`: the receiver with all that runs beside it, and one round of the fallback."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from podledger.cli.parser import Commands, at_least

if TYPE_CHECKING:
    from podledger.ledger import Ledger
    from podledger.services.reconciler import ProbeResult, ReconcilePolicy

OUTBOX_GRACE_S = 2.0
"""How long, when stopping, what is owed to the parent is still tried; the rest is sent after the next start."""


def add_commands(commands: Commands) -> None:
    """serve, reconcile."""
    serve = commands.add("serve", run_serve, "receive reports until SIGTERM or SIGINT, then drain")
    serve.add_argument("--socket", metavar="PATH", required=True, help="where to listen")
    serve.add_argument(
        "--reconcile-every",
        metavar="SECONDS",
        type=at_least(float, 0.01),
        help="also run the fallback so often",
    )
    serve.add_argument(
        "--allow-uid", metavar="UID", type=at_least(int, 0), action="append", default=[], help="also take its reports"
    )
    _add_patience(serve)

    reconcile = commands.add("reconcile", run_reconcile, "probe the pods, suspect the silent, reclaim the dead")
    _add_patience(reconcile)
    reconcile.add_argument("--dry-run", action="store_true", help="only tell, record nothing")


def _add_patience(parser: Any) -> None:
    parser.add_argument(
        "--grace",
        metavar="SECONDS",
        type=at_least(float, 0),
        default=30.0,
        help="least time from the first failure",
    )
    parser.add_argument(
        "--attempts", metavar="N", type=at_least(int, 1), default=3, help="least number of failures in a row"
    )


def _patience(args: Namespace) -> ReconcilePolicy:
    from podledger.services.reconciler import ReconcilePolicy

    return ReconcilePolicy(int(args.attempts), args.grace)


def run_serve(args: Namespace) -> int:
    """Serve until told to stop; 1 if reports were lost."""
    import asyncio
    import logging
    import sys

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="podledger: %(levelname)s: %(message)s")
    return asyncio.run(_serve(args))


async def _serve(args: Namespace) -> int:
    import os
    from contextlib import AsyncExitStack

    from podledger.cli.output import print_json
    from podledger.cli.session import open_ledger, settings
    from podledger.server.receiver import Receiver
    from podledger.services.outbox import Outbox, Retry
    from podledger.services.reconciler import Reconciler

    limits = settings().limits()
    limits = limits._replace(allowed_uids=limits.allowed_uids | set(args.allow_uid))
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(args))
        ledger.database.check_writable()
        await ledger.write_mirror()
        outbox = await stack.enter_async_context(Outbox(ledger, retry=Retry(settings().outbox_attempts)))
        stop = _stop_on_signals()
        async with Receiver(ledger, args.socket, limits=limits) as receiver:
            if args.json:
                print_json({"ready": True, "ledger": ledger.name, "socket": args.socket, "pid": os.getpid()})
            else:
                print(f"podledger: ready: ledger {ledger.name} on {args.socket}", flush=True)
            rounds = Reconciler(ledger, _patience(args)).run(args.reconcile_every) if args.reconcile_every else None
            await _until(stop, rounds)
        await outbox.drain(within_s=OUTBOX_GRACE_S)
    return 1 if receiver.lost else 0


def _stop_on_signals() -> Any:
    import asyncio
    import signal

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until(stop: Any, rounds: Any) -> None:
    """Wait for the signal, while the fallback runs if it is to."""
    import asyncio
    import contextlib

    task = None if rounds is None else asyncio.create_task(rounds)
    await stop.wait()
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run_reconcile(args: Namespace) -> None:
    """Run one round of the fallback."""
    from podledger.cli.output import print_json, print_table
    from podledger.cli.session import with_ledger
    from podledger.services.reconciler import Reconciler

    async def work(ledger: Ledger) -> list[ProbeResult]:
        ledger.database.check_writable()
        return await Reconciler(ledger, _patience(args)).round(dry_run=args.dry_run)

    findings = with_ledger(args, work)
    if args.json:
        print_json([finding.as_json() for finding in findings])
        return
    columns = ("pod", "socket", "verdict", "failures", "reason")
    rows = ((f.pod_name, f.socket_path, f.verdict, f.attempt or None, f.reason) for f in findings)
    print_table(columns, rows, empty="no pods to probe")
