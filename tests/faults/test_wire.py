"""The wire under attack: any bytes are read or refused, and an endless line costs neither memory nor time."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podledger.client.delivery import deliver
from podledger.client.sender import line_of
from podledger.server.framing import Frame, LineBuffer
from tests.faults.fuzz import CORPUS, fuzz, read
from tests.given import OWNER
from tests.runner import podledger, start
from tests.seeds import Count, seeds

MOST_BYTES = 250 << 20


@pytest.mark.parametrize("line", CORPUS)
def test_corpus_lines_are_read_or_refused(line: bytes) -> None:
    assert read(line), "neither read nor refused"


@given(line=st.binary(max_size=300) | st.sampled_from(CORPUS))
def test_any_bytes_are_read_or_refused(line: bytes) -> None:
    assert read(line), "neither read nor refused"


@pytest.mark.parametrize("seed", seeds(2))
def test_altered_lines_are_read_or_refused(seed: int) -> None:
    fuzz(seed, lambda rounds: rounds < 3_000)


def test_fuzzer_names_round_and_seed_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the fuzzer on a reader that fails on one kind of line."""

    def stumbling(line: bytes) -> str:
        assert line in CORPUS or b"null" not in line
        return ""

    monkeypatch.setattr("tests.faults.fuzz.read", stumbling)
    with pytest.raises(AssertionError, match=r"round \d+ of seed 7: b'"):
        fuzz(7, lambda rounds: rounds < 3_000)


@pytest.mark.soak
@pytest.mark.parametrize("seed", seeds(20))
def test_many_altered_lines_are_read_or_refused(seed: int, record_property: Count) -> None:
    fuzz(seed, lambda rounds: rounds < 100_000)
    record_property("lines", 100_000)


@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=8), most=st.integers(1, 60))
@example(data=b"a" * 60 + b"\nb\n", cuts=[10, 20], most=10)
def test_chunk_boundaries_do_not_change_short_lines(data: bytes, cuts: list[int], most: int) -> None:
    buffer = LineBuffer(most)
    found: list[Frame] = []
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for first, end in pairwise(edges):
        buffer.feed(data[first:end])
        while line := buffer.next():
            found.append(line)
        assert len(buffer) <= most
    *lines, rest = data.split(b"\n")
    assert [line.raw for line in found if not line.fault] == [line for line in lines if len(line) <= most]
    overlong = sum(len(line) > most for line in lines) + (len(rest) > most)
    assert sum(bool(line.fault) for line in found) == overlong


@pytest.fixture
def served(short: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Run a receiver in its own process."""
    podledger("--db", short / "a.db", "init", OWNER)
    with start("--db", short / "a.db", "serve", "--socket", short / "s") as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        yield short, process
        process.send_signal(signal.SIGTERM)
        process.communicate()


def peak_bytes(pid: int) -> int:
    """Return the peak memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def endless_line(path: Path, size: int) -> None:
    block = b"x" * (1 << 20)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        for _ in range(size >> 20):
            link.sendall(block)


def time_reports(path: Path, attack: threading.Thread, honest: int) -> list[float]:
    """Send honest reports during an attack; return the seconds that each took."""
    attack.start()
    took = []
    for number in range(honest):
        start = time.monotonic()
        deliver(path, line_of({"kind": "errored", "pod_name": "honest", "message": str(number)}), timeout_s=20)
        took.append(time.monotonic() - start)
    attack.join()
    return took


def withstand(served: tuple[Path, subprocess.Popen[str]], attack: threading.Thread) -> None:
    folder, process = served
    idle = [socket.socket(socket.AF_UNIX) for _ in range(200)]
    for link in idle:
        link.connect(str(folder / "s"))
    took = time_reports(folder / "s", attack, 30)
    assert peak_bytes(process.pid) < MOST_BYTES
    assert max(took) < 10
    for link in idle:
        link.close()
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    kept = podledger("--db", folder / "a.db", "events", "--pod", "honest", "--json").out.splitlines()
    assert len(kept) == 30
    podledger("--db", folder / "a.db", "verify")


def test_endless_line_does_not_delay_honest_senders(served: tuple[Path, subprocess.Popen[str]]) -> None:
    withstand(served, threading.Thread(target=endless_line, args=(served[0] / "s", 64 << 20)))


@pytest.mark.soak
def test_line_of_a_gigabyte_does_not_delay_honest_senders(served: tuple[Path, subprocess.Popen[str]]) -> None:
    withstand(served, threading.Thread(target=endless_line, args=(served[0] / "s", 1 << 30)))
