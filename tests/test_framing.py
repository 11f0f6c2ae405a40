"""Lines from a stream of bytes, cut at any place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podledger.server.framing import KEPT_BYTES, Frame, LineBuffer


def lines_of(*chunks: bytes, max_bytes: int = 1000) -> list[Frame]:
    buffer = LineBuffer(max_bytes)
    found: list[Frame] = []
    for chunk in chunks:
        buffer.feed(chunk)
        while (line := buffer.next()) is not None:
            found.append(line)
    last = buffer.last()
    return [*found, last] if last else found


@given(st.lists(st.binary(max_size=20)), st.data())
def test_chunk_boundaries_do_not_change_lines(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    at = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[start:end] for start, end in zip([0, *at], [*at, len(stream)], strict=True)]
    whole = stream.split(b"\n")
    expected = whole if whole[-1] else whole[:-1]
    assert [line.raw for line in lines_of(*chunks)] == expected


def test_line_is_cut_one_byte_past_the_maximum() -> None:
    longest, longer = b"x" * 1000, b"y" * 1001
    first, second = lines_of(longest + b"\n" + longer + b"\n")
    assert first == Frame(longest)
    assert second.raw == longer
    assert "longer than 1,000 bytes" in second.fault


def test_endless_line_is_cut_once_and_not_held() -> None:
    buffer = LineBuffer(100_000)
    buffer.feed(b"x" * 100_001)
    line = buffer.next()
    assert line is not None
    assert line.raw == b"x" * KEPT_BYTES
    for _ in range(100):
        buffer.feed(b"x" * 100_000)
        assert buffer.next() is None
        assert len(buffer) == 0
    buffer.feed(b"end of it\nnext\n")
    assert buffer.next() == Frame(b"next")


def test_cut_line_carries_its_fault_and_skips_the_rest() -> None:
    buffer = LineBuffer(1000)
    buffer.feed(b"half a li")
    assert buffer.cut_short("too slow") == Frame(b"half a li", "too slow")
    buffer.feed(b"ne\nwhole\n")
    assert buffer.next() == Frame(b"whole")


def test_single_bytes_take_linear_time() -> None:
    buffer = LineBuffer(1 << 20)
    for _ in range(300_000):
        buffer.feed(b"x")
        assert buffer.next() is None
    assert len(buffer) == 300_000
