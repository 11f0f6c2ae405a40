"""`serve`: receive reports on a Unix socket, and run the outbox, the mirror and the reconciler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from podledger.cli.output import print_json
from podledger.cli.parser import Parser, at_least
from podledger.cli.policy import add_policy, policy_of
from podledger.cli.session import open_ledger, settings
from podledger.core.errors import UsageError
from podledger.core.stamps import SPOOL_VARIABLE
from podledger.core.text import escape
from podledger.server.receiver import Receiver
from podledger.server.serving import check_parent, claim_serving
from podledger.services.outbox import Outbox
from podledger.services.reconciler import Reconciler
from podledger.services.spool_sweeper import SpoolSweeper
from podledger.settings import Settings

OUTBOX_GRACE_S: Final = 2.0
"""How long a stopping server still tries to deliver to the parent. The rest is sent after the next start."""


def add_arguments(parser: Parser) -> None:
    """Add the socket, and the options of the reconciler."""
    parser.add_argument("--socket", metavar="PATH", required=True, help="socket to listen on")
    parser.add_argument(
        "--reconcile-every", metavar="SECONDS", type=at_least(float, 0.01), help="also reconcile at this interval"
    )
    parser.add_argument(
        "--allow-uid",
        metavar="UID",
        type=at_least(int, 0),
        action="append",
        default=[],
        help="also accept reports from this user; repeat it for several",
    )
    parser.add_argument(
        "--spool",
        metavar="DIR",
        action="append",
        default=[],
        help="also take in what pods left in this spool; repeat it for several",
    )
    add_policy(parser)


def run(args: Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return 1 if reports were lost."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="podledger: %(levelname)s: %(message)s")
    return asyncio.run(_serve(args, settings()))


async def _serve(args: Namespace, chosen: Settings) -> int:
    _check_spools(args.spool)
    limits = chosen.limits()
    limits = limits._replace(allowed_uids=limits.allowed_uids | set(args.allow_uid))
    async with contextlib.AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(open_ledger(args))
        ledger.database.check_writable()
        check_parent(ledger.name, (await ledger.head()).parent_socket, args.socket)
        stack.callback(claim_serving(ledger.database.place, ledger.name, args.socket).release)
        await ledger.write_mirror()
        outbox = await stack.enter_async_context(Outbox(ledger))
        stop = _stop_on_signals()
        for directory in args.spool:
            sweeper = SpoolSweeper(ledger, directory, every_s=chosen.sweep_every_s, allowed_uids=limits.allowed_uids)
            await stack.enter_async_context(sweeper)
        async with Receiver(ledger, args.socket, limits=limits) as receiver:
            if args.json:
                print_json({"ready": True, "ledger": ledger.name, "socket": args.socket, "pid": os.getpid()})
            else:
                print(f"podledger: ready: ledger {escape(ledger.name)} on {escape(args.socket)}", flush=True)
            rounds = Reconciler(ledger, policy_of(args)).run(args.reconcile_every) if args.reconcile_every else None
            await _wait_for(stop, rounds)
        await outbox.drain(within_s=OUTBOX_GRACE_S)
    return 1 if receiver.lost or receiver.unread_bytes else 0


def _check_spools(directories: list[str]) -> None:
    """Refuse to sweep the spool in which this pod's own reports wait for its parent.

    Raises:
        UsageError: one of them is that spool.
    """
    own = os.environ.get(SPOOL_VARIABLE)
    if own and Path(own).resolve() in [Path(directory).resolve() for directory in directories]:
        hint = "give the spool of the pods below this one, which they get in their environment"
        raise UsageError(f"--spool {own} is the spool of this pod's own reports ({SPOOL_VARIABLE})", hint=hint)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _wait_for(stop: asyncio.Event, rounds: Coroutine[Any, Any, None] | None) -> None:
    """Wait for the signal; until then, run the reconciler if there is one."""
    task = None if rounds is None else asyncio.create_task(rounds)
    await stop.wait()
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
