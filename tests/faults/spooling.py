"""Senders that are killed: `python -m tests.faults.spooling calls|load ...`.

`calls` kills a forked sender at a call that changes the spool or uses the socket: before the call, after it, or, for a
write, in the middle. `load` sends until it is killed or told to stop. Both write the text of each report to a file
once it must not be lost any more.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from podledger import Errored, send_pod_event

BEFORE, TORN, AFTER = "before", "torn", "after"
WAYS: Final = (BEFORE, TORN, AFTER)
CALLS: Final = ("open", "pwrite", "unlink", "ftruncate", "mkdir", "close", "fchmod")
POD: Final = "coder"


def report(path: str, spool: str, text: str, kept: int) -> None:
    """Report an error with a text of its own, and write that text to `kept` once the spool has it."""
    while True:
        try:
            send_pod_event(path, Errored(pod_name=POD, message=text), spool=spool).close()
        except OSError as error:
            if "wait there already" not in str(error):
                raise
            time.sleep(0.01)  # the spool is full, as it should be when the owner is away for long
        else:
            os.write(kept, f"{text}\n".encode())
            return


class Killer:
    """Counts calls in this process, and kills it at one of them."""

    def __init__(self, at: int, way: str) -> None:
        self.count = 0
        self._at = at
        self._way = way
        for name in CALLS:
            setattr(os, name, self._counting(getattr(os, name)))
        for name in ("send", "recv"):
            setattr(socket.socket, name, self._counting(getattr(socket.socket, name)))

    def _counting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count != self._at:
                return call(*arguments, **options)
            if self._way == TORN and call.__name__ in ("pwrite", "send"):
                where, data, *rest = arguments
                call(where, data[: len(data) // 2], *rest, **options)
            if self._way == AFTER:
                call(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("killed")

        return counted


def calls(path: str, spool: str, kept: str, count: int, kills: list[tuple[int, str]]) -> list[bool]:
    """Fork a sender for each kill; return whether it came so far."""
    return [_forked(path, spool, kept, count, at, way) for at, way in kills]


def _forked(path: str, spool: str, kept: str, count: int, at: int, way: str) -> bool:
    child = os.fork()
    if child == 0:
        writing = os.open(kept, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        from podledger.client import spool_sender

        Killer(at, way)
        for number in range(count):
            report(path, spool, f"{at} {way} {number}", writing)
        spool_sender._settle_all()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def load(path: str, spool: str, kept: str, stop: str) -> None:
    """Report until `stop` exists."""
    writing = os.open(kept, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    number = 0
    while number % 50 or not Path(stop).exists():
        number += 1
        report(path, spool, f"{os.getpid()} {number}", writing)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["calls", path, spool, kept, count, kills]:
            print(json.dumps(calls(path, spool, kept, int(count), json.loads(kills))))
        case ["load", path, spool, kept, stop]:
            load(path, spool, kept, stop)
        case unknown:
            raise SystemExit(f"unknown rounds: {unknown}")
