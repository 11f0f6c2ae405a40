"""A fuzzer of the wire protocol. It mutates lines, and keeps and mutates each that gets a new kind of response.

`python -m tests.faults.fuzz MINUTES [SEED]` adds these lines to the corpus. Every line of the corpus is a test.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from podledger.archive.transfer import read_line
from podledger.core.delegations import delegation_from
from podledger.core.entries import draft
from podledger.core.errors import ProtocolError
from podledger.core.events import parse_event
from podledger.core.protocol import Report, parse_line
from podledger.server.framing import LineBuffer
from podledger.store.log import Rejection
from tests.given import OWNER
from tests.seeds import SEED

FILE: Final = Path(__file__).parent.parent / "corpus" / "wire.txt"
CORPUS: Final = FILE.read_bytes().split(b"\n")[:-1]
MAX_KEPT_BYTES: Final = 400
"""Longer lines are mutated, but not kept."""

MAX_CORPUS_LINES: Final = 400
"""The most lines in the corpus."""

FRAGMENTS: Final = (
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u", b"\\ud800", b"\x00", b"\xff", b" ", b"\t", b"\r"),
    *(b"null", b"true", b"-0", b"1e400", b"9" * 20, b"1.5", b'""', b"{}", b"[]", b"NaN"),
    *(b'"stamp":', b'"subject":', b'"kind":', b'"method":"pod_event",', b'"recursive":false,', b'"extra":1,'),
    *(
        b'"digest":"",',
        b'"seq":1,',
        b'"payload":',
        b"pod_spawned",
        b"callback_address",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
    ),
)


def read(line: bytes) -> str:
    """Read a line as the receiver, an import and a rebuild do; return its kind, or the reason to reject it."""
    imported = read_line(line, OWNER)
    found = _received(line)
    if isinstance(found, Report):
        return _event(found, imported)
    reasons = [found.message, imported.reason] if isinstance(imported, Rejection) else [found.message]
    assert all(reason and reason.isprintable() for reason in reasons)
    return f"{type(imported).__name__}: {reasons[-1]}"


def _received(line: bytes) -> Report | ProtocolError:
    try:
        found = parse_line(line)
    except ProtocolError as error:
        return error
    return found if isinstance(found, Report) else ProtocolError(found.method)


def _event(found: Report, imported: object) -> str:
    made = draft(found.event, OWNER, payload=found.payload)
    assert made.kind in ("turn_ended", "errored", "shut_down", "scope_sub_delegated")
    assert json.loads(found.payload)["kind"] == made.kind
    assert parse_event(found.payload) == found.event, "the stored payload is another event"
    if made.delegation:
        assert delegation_from(made.kind, found.payload, OWNER, made.speaker) == made.delegation, (
            "a rebuild reads another delegation"
        )
    assert imported == made, "an import reads another event"
    stamp = found.event.stamp
    return f"{made.kind} {bool(stamp)} {bool(stamp and stamp.subject)} {'stamp' in found.payload}"


def check_framing(line: bytes, dice: random.Random) -> None:
    """Check that a line is found between two others in a stream that arrives in random pieces."""
    stream = b"before\n" + line + b"\nafter\n"
    buffer, found = LineBuffer(2 * MAX_KEPT_BYTES), []
    while stream:
        size = dice.randrange(1, len(stream) + 1)
        buffer.feed(stream[:size])
        stream = stream[size:]
        while each := buffer.next():
            found.append(each)
    assert [found[0].raw, found[-1].raw] == [b"before", b"after"]
    assert b"\n".join(each.raw for each in found[1:-1]) == line or any(each.fault for each in found)


def mutated(dice: random.Random, corpus: list[bytes]) -> bytes:
    """Return a line of the corpus with random cuts, copies and changes."""
    line = bytearray(dice.choice(corpus))
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(line) + 1)
        match dice.randrange(6):
            case 0:
                line[at : at + 1] = dice.randbytes(1)
            case 1:
                del line[at : at + dice.randrange(1, 10)]
            case 2:
                line[at:at] = dice.choice(FRAGMENTS)
            case 3:
                line[at:at] = line[: dice.randrange(30)]
            case 4:
                line[at : at + dice.randrange(1, 6)] = dice.choice(FRAGMENTS)
            case _:
                other = dice.choice(corpus)
                line[at:] = other[dice.randrange(len(other) + 1) :]
    return bytes(line)


def response_class(response: str) -> str:
    """Return the start and the end of a response, without the text that it quotes from the line."""
    begins, ends = re.split("[\"']", response)[0], response.split()[-2:]
    return re.sub(r"\d+", "_", f"{begins}… {ends}")


def fuzz(seed: int, proceed: Callable[[int], bool]) -> list[bytes]:
    """Mutate and read lines while `proceed(rounds)` is true; return those that got a new kind of response."""
    dice = random.Random(seed)
    corpus, seen = list(CORPUS), {response_class(read(line)) for line in CORPUS}
    rounds = 0
    while proceed(rounds):
        line = mutated(dice, corpus)
        try:
            response = response_class(read(line))
            check_framing(line, dice)
        except BaseException as error:
            raise AssertionError(f"round {rounds} of seed {seed}: {line!r}") from error
        fits = len(line) <= MAX_KEPT_BYTES and len(corpus) < MAX_CORPUS_LINES and b"\n" not in line
        if response not in seen and fits:
            seen.add(response)
            corpus.append(line)
        rounds += 1
    return corpus[len(CORPUS) :]


def keep(lines: Iterable[bytes]) -> None:
    """Append lines to the corpus."""
    with FILE.open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


def main(minutes: str, seed: str = str(SEED)) -> None:
    """Fuzz for some minutes and save the lines that fail."""
    until = time.monotonic() + 60 * float(minutes)
    done = 0

    def proceed(rounds: int) -> bool:
        nonlocal done
        done = rounds
        return rounds % 1000 != 0 or time.monotonic() < until

    found = fuzz(int(seed), proceed)
    keep(found)
    print(f"seed {seed}: {done:,} lines, {len(found)} of them kept, {len(CORPUS) + len(found)} in the corpus")


if __name__ == "__main__":
    main(*sys.argv[1:])
