"""Rounds of faults in a process with the shim loaded: `python -m tests.faults.inside ROUNDS ...`.

The last line of the output is a JSON document with the result.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from podledger import Ledger
from podledger.core.entries import Entry
from podledger.core.errors import PodledgerError, StorageError
from podledger.mirror import write_mirror
from tests.faults.operations import NAME, OPERATIONS, check_ledger, check_open, fresh
from tests.faults.preload import CHANGES, EVERYTHING, FAIL, KILL, TEAR, Faults
from tests.given import OWNER, spawned, stopped, turned, writes

Acked = list[tuple[int, str]]


def sampled(total: int, most: int, seed: int) -> list[int]:
    """Return the numbers from 1 to `total`, or `most` of them including the first and the last."""
    if total <= most:
        return list(range(1, total + 1))
    return sorted({1, total, *random.Random(seed).sample(range(1, total + 1), most - 2)})


def count_calls(faults: Faults, template: Path, folder: Path, name: str, kinds: int) -> int:
    """Return how many calls an operation makes without faults."""
    fresh(template, folder)
    faults.count(kinds)
    asyncio.run(_acking(OPERATIONS[name].run, folder, []))
    return faults.disarm()


async def _acking(run: Callable[..., Any], folder: Path, acked: Acked) -> None:
    await run(folder, lambda seq, digest: acked.append((seq, digest)))


def fail_rounds(name: str, folder: Path, error: str, times: int, most: int, seed: int) -> dict[str, Any]:
    """Let each call of an operation fail. The caller must get an error, and acknowledged entries must survive."""
    template, work = folder / "template", folder / "work"
    asyncio.run(_prepare(name, template))
    faults = Faults(work)
    total = count_calls(faults, template, work, name, EVERYTHING)
    outcomes: dict[str, int] = {}
    for at in sampled(total, most, seed):
        fresh(template, work)
        acked: Acked = []
        faults.arm(FAIL, at, times=times, error=getattr(errno, error))
        try:
            asyncio.run(_acking(OPERATIONS[name].run, work, acked))
            outcome = "done"
        except PodledgerError as failure:
            outcome = failure.message.partition(": ")[2] or failure.message
        except Exception as surprise:
            raise RuntimeError(f"{name}: call {at} of {total} failed with {error}") from surprise
        finally:
            faults.disarm()
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        _checked(name, work, acked, f"{name}: call {at} of {total} failed with {error}")
    return {"calls": total, "outcomes": outcomes}


def recover_rounds(folder: Path, error: str, times: int, most: int, seed: int) -> dict[str, Any]:
    """Let each call of an append fail on an open ledger. The ledger must recover when the disk does."""
    folder.mkdir(exist_ok=True)
    return asyncio.run(_recover(Faults(folder), folder, getattr(errno, error), times, most, seed))


async def _recover(faults: Faults, folder: Path, error: int, times: int, most: int, seed: int) -> dict[str, Any]:
    acked: Acked = []
    failed = 0
    async with Ledger.open(folder / NAME, OWNER) as ledger:

        async def append(name: str) -> None:
            entries = await ledger.append_many([spawned(name), turned(name)])
            acked.extend((entry.seq, entry.digest) for entry in entries)

        await append("first")
        faults.count()
        await append("counted")
        total = faults.disarm() + 3
        for at in sampled(total, most, seed):
            faults.arm(FAIL, at, times=times, error=error)
            try:
                await asyncio.gather(append(f"pod-{at}"), append(f"other-{at}"))
            except StorageError:
                failed += 1
            faults.disarm()
            await append(f"again-{at}")
            await check_open(ledger, acked)
    await check_ledger(folder, acked)
    return {"calls": total, "failed": failed}


def kill_rounds(name: str, folder: Path, most: int, seed: int) -> dict[str, Any]:
    """Kill the process after each call of an operation, and in the middle of each write."""
    template, work = folder / "template", folder / "work"
    asyncio.run(_prepare(name, template))
    faults = Faults(work)
    total = count_calls(faults, template, work, name, CHANGES)
    killed = 0
    for at in sampled(total, most, seed):
        for what in (KILL, TEAR):
            fresh(template, work)
            acked, status = forked(_dying(faults, what, at, name, work))
            killed += os.WIFSIGNALED(status)
            _checked(name, work, acked, f"{name}: killed at call {at} of {total}, {what=}")
    return {"calls": total, "killed": killed}


def _dying(faults: Faults, what: int, at: int, name: str, work: Path) -> Callable[[int], Coroutine[Any, Any, None]]:
    async def run(acks: int) -> None:
        faults.arm(what, at, kinds=CHANGES)
        await OPERATIONS[name].run(work, lambda seq, digest: _send_ack(acks, seq, digest))

    return run


def load_rounds(folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Kill the process at random under load, again and again on one growing file."""
    faults = Faults(folder)
    folder.mkdir(exist_ok=True)
    asyncio.run(_make(folder))
    everything: dict[int, str] = {}
    dice = random.Random(seed)
    for number in range(rounds):
        what, at = dice.choice((KILL, TEAR)), dice.randrange(1, 400)
        acked, status = forked(_loaded(faults, what, at, folder))
        everything.update(acked)
        assert os.WIFSIGNALED(status), f"round {number}: the process was not killed: {status}"
        _checked(None, folder, list(everything.items()), f"round {number} of seed {seed}: {what=} {at=}")
    return {"rounds": rounds, "acknowledged": len(everything), "bytes": (folder / NAME).stat().st_size}


def _loaded(faults: Faults, what: int, at: int, folder: Path) -> Callable[[int], Coroutine[Any, Any, None]]:
    async def run(acks: int) -> None:
        faults.arm(what, at, kinds=CHANGES)
        async with Ledger.open(folder / NAME, OWNER) as ledger:

            async def one(name: str) -> None:
                while True:
                    entry = await ledger.append(spawned(name))
                    _send_ack(acks, entry.seq, entry.digest)
                    entry = await ledger.append(turned(name))
                    _send_ack(acks, entry.seq, entry.digest)

            await asyncio.gather(*(one(f"pod-{number}") for number in range(8)))

    return run


def record_history(folder: Path, journal: Path, rounds: int, synchronous: str) -> dict[str, Any]:
    """Keep a journal while processes create a ledger, append past several checkpoints, rebuild and close it."""
    if synchronous != "FULL":
        weakened = partial(sqlite3.connect, factory=partial(Weakened, to=synchronous))
        setattr(sqlite3.dbapi2, "connect", weakened)  # noqa: B010 - an assignment is no `connect` to the type checker
    folder.mkdir()
    faults = Faults(folder)
    faults.journal(journal)
    for _ in range(rounds):
        asyncio.run(_one_session(folder, faults))
    return {"bytes": journal.stat().st_size}


async def _one_session(folder: Path, faults: Faults) -> None:
    """Open, use and close the ledger once; closing it checkpoints and removes the WAL."""

    def ack(entries: list[Entry]) -> None:
        for entry in entries:
            faults.note(f"{entry.seq} {entry.digest}")

    async with Ledger.open(folder / NAME, OWNER) as ledger:

        async def one(name: str) -> None:
            for number in range(60):
                ack(
                    await ledger.append_many([spawned(name, scope=writes(f"/w/{number}/" + "x" * 2000)), stopped(name)])
                )

        await asyncio.gather(*(one(f"pod-{number}") for number in range(3)))
        await ledger.rebuild()
        await asyncio.to_thread(write_mirror, folder / "pods.json", await ledger.pods(), folder / NAME)


class Weakened(sqlite3.Connection):
    """A connection that sets `synchronous` to `to` and ignores requests to change it."""

    def __init__(self, *args: Any, to: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute(f"PRAGMA synchronous = {to}")

    def cursor(self, *_args: Any, **_options: Any) -> Any:
        return super().cursor(_CursorIgnoringSynchronous)


class _CursorIgnoringSynchronous(sqlite3.Cursor):
    def execute(self, sql: str, *values: Any) -> Any:
        return super().execute("SELECT 1" if sql.startswith("PRAGMA synchronous =") else sql, *values)


async def _make(folder: Path) -> None:
    async with Ledger.open(folder / NAME, OWNER):
        pass


def forked(work: Callable[[int], Coroutine[Any, Any, None]]) -> tuple[Acked, int]:
    """Run `work` in a child with a pipe for its acknowledgements; return these and the child's exit status."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            asyncio.run(work(writing))
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not continue as its parent
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as acks:
        # The child died while it wrote a line without its end, so that entry was not acknowledged.
        lines = [line.split() for line in acks.read().splitlines(keepends=True) if line.endswith(b"\n")]
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return [(int(seq), digest.decode()) for seq, digest in lines], status


def _send_ack(acks: int, seq: int, digest: str) -> None:
    os.write(acks, f"{seq} {digest}\n".encode())


async def _prepare(name: str, template: Path) -> None:
    template.mkdir(parents=True, exist_ok=True)
    await OPERATIONS[name].prepare(template)


def _checked(name: str | None, folder: Path, acked: Acked, after: str) -> None:
    try:
        if name is not None:
            asyncio.run(_check_operation(name, folder))
        asyncio.run(check_ledger(folder, acked))
    except BaseException as error:
        raise RuntimeError(after) from error


async def _check_operation(name: str, folder: Path) -> None:
    await OPERATIONS[name].check(folder)


def main(argv: Iterable[str]) -> None:
    match list(argv):
        case ["fail", name, folder, error, times, most, seed]:
            result = fail_rounds(name, Path(folder), error, int(times), int(most), int(seed))
        case ["recover", folder, error, times, most, seed]:
            result = recover_rounds(Path(folder), error, int(times), int(most), int(seed))
        case ["kill", name, folder, most, seed]:
            result = kill_rounds(name, Path(folder), int(most), int(seed))
        case ["record", folder, journal, rounds, synchronous]:
            result = record_history(Path(folder), Path(journal), int(rounds), synchronous)
        case ["load", folder, rounds, seed]:
            result = load_rounds(Path(folder), int(rounds), int(seed))
        case unknown:
            raise SystemExit(f"unknown rounds: {unknown}")
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
