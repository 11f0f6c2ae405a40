"""Row 9: the time of a command from a cold start, compared with `python -c pass`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.figures import Figures
from benchmarks.history import fill
from benchmarks.places import Places
from benchmarks.servers import SNAPSHOT

NOTHING = "python -c pass"


def seconds(*arguments: str) -> float:
    """Run Python with these arguments; return the seconds it takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure(figures: Figures, places: Places, *, repeats: int) -> None:
    """Alternate between the commands, with a server that accepts every line."""
    database, path = places.fresh(), places.fresh("sock")
    asyncio.run(fill(database, 2_000))
    threading.Thread(target=asyncio.run, args=(_answer(path),), daemon=True).start()
    while not path.exists():
        time.sleep(0.01)
    commands = {
        NOTHING: ("-c", "pass"),
        "podledger --help": ("-m", "podledger", "--help"),
        "podledger send": ("-m", "podledger", "send", str(path), "turn-ended", "coder"),
        "podledger pods": ("-m", "podledger", "--db", str(database), "pods"),
    }
    for _ in range(repeats):
        for name, arguments in commands.items():
            figures.add(name, seconds(*arguments), "s")
    for name, at_most in (("podledger --help", 5.0), ("podledger send", 5.0), ("podledger pods", None)):
        figures.compare(9, f"{name}, compared with a bare start", name, NOTHING, at_most=at_most)


async def _answer(path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SNAPSHOT)
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(answer, path) as server:
        await server.serve_forever()
