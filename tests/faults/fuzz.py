"""A fuzzer of the wire. Of the lines that it alters, one that is answered as none before is kept, and altered further.

`python -m tests.faults.fuzz MINUTES [SEED]` puts what it keeps into the corpus, of which every line is a test.
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
from tests.faults.samples import OWNER, SEED

FILE: Final = Path(__file__).parent.parent / "corpus" / "wire.txt"
CORPUS: Final = FILE.read_bytes().split(b"\n")[:-1]
LONGEST: Final = 400
"""Lines that are longer are altered, but not kept."""

MOST: Final = 400
"""How many lines are kept."""

WORDS: Final = (
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
    """Read a line as the receiver, the import and a rebuild do; what it is: an event, a method, or why it is none."""
    taken = read_line(line, OWNER)
    found = _received(line)
    if isinstance(found, Report):
        return _event(found, taken)
    reasons = [found.message, taken.reason] if isinstance(taken, Rejection) else [found.message]
    assert all(reason and reason.isprintable() for reason in reasons)
    return f"{type(taken).__name__}: {reasons[-1]}"


def _received(line: bytes) -> Report | ProtocolError:
    try:
        found = parse_line(line)
    except ProtocolError as error:
        return error
    return found if isinstance(found, Report) else ProtocolError(found.method)


def _event(found: Report, taken: object) -> str:
    made = draft(found.event, OWNER, payload=found.payload)
    assert made.kind in ("turn_ended", "errored", "shut_down", "scope_sub_delegated")
    assert json.loads(found.payload)["kind"] == made.kind
    assert parse_event(found.payload) == found.event, "what is read back is another event"
    if made.content:
        assert delegation_from(made.kind, found.payload, OWNER) == made.content, "a rebuild reads another delegation"
    assert taken == made, "an import reads another event"
    stamp = found.event.stamp
    return f"{made.kind} {bool(stamp)} {bool(stamp and stamp.subject)} {'stamp' in found.payload}"


def framed(line: bytes, dice: random.Random) -> None:
    """Cut a line from a stream in which it stands between two others, in pieces as they may come."""
    stream = b"before\n" + line + b"\nafter\n"
    buffer, found = LineBuffer(2 * LONGEST), []
    while stream:
        size = dice.randrange(1, len(stream) + 1)
        buffer.feed(stream[:size])
        stream = stream[size:]
        while each := buffer.next():
            found.append(each)
    assert [found[0].raw, found[-1].raw] == [b"before", b"after"]
    assert b"\n".join(each.raw for each in found[1:-1]) == line or any(each.fault for each in found)


def altered(dice: random.Random, corpus: list[bytes]) -> bytes:
    """A line of the corpus, cut, joined, doubled and changed here and there."""
    line = bytearray(dice.choice(corpus))
    for _ in range(dice.randrange(1, 5)):
        at = dice.randrange(len(line) + 1)
        match dice.randrange(6):
            case 0:
                line[at : at + 1] = dice.randbytes(1)
            case 1:
                del line[at : at + dice.randrange(1, 10)]
            case 2:
                line[at:at] = dice.choice(WORDS)
            case 3:
                line[at:at] = line[: dice.randrange(30)]
            case 4:
                line[at : at + dice.randrange(1, 6)] = dice.choice(WORDS)
            case _:
                other = dice.choice(corpus)
                line[at:] = other[dice.randrange(len(other) + 1) :]
    return bytes(line)


def verdict(answer: str) -> str:
    """How an answer begins and ends, without what the line itself put into it."""
    begins, ends = re.split("[\"']", answer)[0], answer.split()[-2:]
    return re.sub(r"\d+", "_", f"{begins}… {ends}")


def fuzz(seed: int, goes_on: Callable[[int], bool]) -> list[bytes]:
    """Alter and read lines, so long as it `goes_on` after so many; those that were answered as none before."""
    dice = random.Random(seed)
    corpus, seen = list(CORPUS), {verdict(read(line)) for line in CORPUS}
    rounds = 0
    while goes_on(rounds):
        line = altered(dice, corpus)
        try:
            answer = verdict(read(line))
            framed(line, dice)
        except BaseException as error:
            raise AssertionError(f"round {rounds} of seed {seed}: {line!r}") from error
        if answer not in seen and len(line) <= LONGEST and len(corpus) < MOST and b"\n" not in line:
            seen.add(answer)
            corpus.append(line)
        rounds += 1
    return corpus[len(CORPUS) :]


def keep(lines: Iterable[bytes]) -> None:
    """Put lines into the corpus."""
    with FILE.open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


def main(minutes: str, seed: str = str(SEED)) -> None:
    """Fuzz for so long."""
    until = time.monotonic() + 60 * float(minutes)
    done = 0

    def goes_on(rounds: int) -> bool:
        nonlocal done
        done = rounds
        return rounds % 1000 != 0 or time.monotonic() < until

    found = fuzz(int(seed), goes_on)
    keep(found)
    print(f"seed {seed}: {done:,} lines, {len(found)} of them kept, {len(CORPUS) + len(found)} in the corpus")


if __name__ == "__main__":
    main(*sys.argv[1:])
