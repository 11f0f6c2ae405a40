"""Row 7: peak memory of serving, rebuilding and verifying, each in its own process, for a short and a long log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks import workload
from benchmarks.figures import Figures
from benchmarks.places import Places
from benchmarks.receiving import send_all

SERVED = 10_000
LAUNCHER = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True)
sys.exit(status)
"""
"""Starts a process from a small one, because Linux counts the memory of the parent into the peak of a child."""


def launched(*arguments: str) -> subprocess.Popen[str]:
    """Start Python with these arguments; after its output, it prints its peak memory in kilobytes."""
    command = [sys.executable, "-c", LAUNCHER, sys.executable, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def peak_mb(process: subprocess.Popen[str]) -> float:
    """Wait for a process; return its peak memory in megabytes."""
    printed, _ = process.communicate()
    assert process.returncode == 0
    return int(printed.split()[-1]) / 1024


def of_command(database: Path, command: str) -> float:
    """Return the peak memory of a podledger command."""
    return peak_mb(launched("-m", "podledger", "--db", str(database), command))


def of_serving(database: Path, path: Path, lines: list[bytes]) -> float:
    """Return the peak memory of a receiver that appends the lines to the ledger."""
    process = launched("-m", "benchmarks.servers", "podledger", str(path), str(len(lines)), str(database))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    send_all(str(path), lines)
    return peak_mb(process)


def measure(figures: Figures, places: Places, short_log: Path, long_log: Path, lengths: tuple[int, int]) -> None:
    """Measure both logs; the targets limit how much the peak grows with the log."""
    lines = [workload.wire_line(event) for event in workload.events(SERVED)]
    shorter, longer = (f"{length:,} events" for length in lengths)
    for log, length in ((short_log, shorter), (long_log, longer)):
        for command in ("rebuild", "verify"):
            figures.add(f"peak of {command}, {length}", of_command(log, command), "MB")
        figures.add(f"peak of serving, {length}", of_serving(log, places.fresh("sock"), lines), "MB")
    for what, at_most in (("serving", 1.2), ("verify", 1.2), ("rebuild", None)):
        long_peak, short_peak = f"peak of {what}, {longer}", f"peak of {what}, {shorter}"
        title = f"{what}: peak memory with {longer}, compared with {shorter}"
        figures.compare(7, title, long_peak, short_peak, at_most=at_most)
