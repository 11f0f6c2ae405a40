"""The wire models against the lines, with verdicts, of the seed system's own parser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podledger.core.errors import ProtocolError
from podledger.core.protocol import MAX_VALUES, Report, Request, parse_line
from podledger.core.strict_json import MAX_DEPTH

VECTORS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "wire_vectors.jsonl").read_text().splitlines()
]
NAMELESS = '{"method":"pod_event","params":{"kind":"turn_ended","pod_name":""}}'
"""The seed's parser takes it and its store refuses the name; podledger refuses such names at the door."""

ACCEPTED = [vector for vector in VECTORS if vector["accepted"] and vector["line"] != NAMELESS]
REFUSED = [vector["line"] for vector in VECTORS if not vector["accepted"]] + [NAMELESS]


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector["line"][:80])
def test_a_line_that_the_seed_takes_is_taken_with_the_same_meaning(vector: dict[str, Any]) -> None:
    message = parse_line(vector["line"].encode())
    canonical = json.loads(vector["canonical"])
    if isinstance(message, Request):
        assert message.method == canonical["method"] != "pod_event"
    else:
        assert json.loads(message.event.payload()) == canonical["params"]


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line[:80])
def test_a_line_that_the_seed_refuses_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError):
        parse_line(line.encode())


def test_the_vectors_are_all_there() -> None:
    assert len(VECTORS) == len(ACCEPTED) + len(REFUSED) > 40
    assert NAMELESS in [vector["line"] for vector in VECTORS if vector["accepted"]]


@given(
    params=st.sampled_from(
        [json.dumps(json.loads(vector["line"])["params"]) for vector in ACCEPTED if "params" in vector["line"]]
    )
    | st.recursive(
        st.just("1"), lambda inner: inner.map(lambda text: f'{{"kind":"turn_ended","pod_name":"a","x":{text}}}')
    )
    | st.text(alphabet='{}[]",:1a\\u', max_size=40),
)
@example(params='{"kind":"turn_ended","pod_name":"a","x":"\\ud800"}')
@example(params='{"kind":"turn_ended","pod_name":"a","pod_name":"a"}')
@example(params='{"kind":"turn_ended","pod_name":"a"} ')
@example(params='{"kind":"turn_ended","pod_name":"a"},"more":1')
def test_a_line_means_the_same_in_whatever_order_its_members_stand(params: str) -> None:
    assert read(f'{{"method":"pod_event","params":{params}}}') == read(f'{{"params":{params},"method":"pod_event"}}')


@pytest.mark.parametrize("more", [-1, 0])
def test_depth_is_counted_alike_in_whatever_order_the_members_stand(more: int) -> None:
    deep = "[" * (MAX_DEPTH - 1 + more) + "]" * (MAX_DEPTH - 1 + more)
    params = f'{{"kind":"turn_ended","pod_name":"a","x":{deep}}}'
    one, other = f'{{"method":"pod_event","params":{params}}}', f'{{"params":{params},"method":"pod_event"}}'
    assert read(one) == read(other)
    assert (read(one) is None) == (more == 0)


def read(line: str) -> Report | Request | None:
    """What a line is, None if it is refused."""
    try:
        return parse_line(line.encode())
    except ProtocolError:
        return None


def test_the_payload_is_kept_as_it_came() -> None:
    params = '{ "pod_name" : "child",\t"extra":1.50, "kind":"turn_ended" }'
    message = parse_line(f'{{"params":{params} , "method":"pod_event"}}'.encode())
    assert isinstance(message, Report)
    assert message.payload == params


@pytest.mark.parametrize("name", [".", "..", "a/b", "/", "nul\\u0000", "bell\\u0007", "x" * 256, "é" * 128])
def test_a_name_that_could_name_no_folder_is_refused_at_the_door(name: str) -> None:
    with pytest.raises(ProtocolError, match="pod_name"):
        parse_line(f'{{"method":"pod_event","params":{{"kind":"turn_ended","pod_name":"{name}"}}}}'.encode())


@pytest.mark.parametrize("kind", ["pod_spawned", "pod_exited", "pod_unreachable", "pod_reclaimed"])
def test_a_fact_that_is_the_owners_to_state_is_refused(kind: str) -> None:
    params = {"kind": kind, "pod_name": "a", "socket_path": "/s", "scope": [], "exit_code": 0, "reason": "x"}
    with pytest.raises(ProtocolError, match=kind):
        parse_line(json.dumps({"method": "pod_event", "params": params}).encode())


@pytest.mark.parametrize("stamp", [None, 7, [], {}, {"id": "x"}, {"id": "0" * 36, "sequence": 0}])
def test_a_malformed_stamp_costs_nothing_but_itself(stamp: object) -> None:
    params = {"kind": "turn_ended", "pod_name": "child", "stamp": stamp}
    message = parse_line(json.dumps({"method": "pod_event", "params": params}).encode())
    assert isinstance(message, Report)
    assert message.event.stamp is None


def listing(values: int) -> bytes:
    """A delegation whose scope, `kind` and the rest list so many values."""
    rules = ",".join(['{"target":"/a,b\\",","permission":"read"}'] * ((values - 4) // 2))
    params = f'"kind":"scope_sub_delegated","parent_pod":"a","sub_pod":"b","sub_socket":"/s","scope":[{rules}]'
    return f'{{"method":"pod_event","params":{{{params}}}}}'.encode()


def test_a_line_lists_so_many_values_and_no_more() -> None:
    """What takes long to read is not bytes but values; a comma within a text counts for none."""
    assert parse_line(listing(MAX_VALUES - 2))
    text = json.dumps({"kind": "errored", "pod_name": "a", "message": '"},\\",' * 50_000})
    assert parse_line(f'{{"method":"pod_event","params":{text}}}'.encode())
    with pytest.raises(ProtocolError, match="more than 10,000 values"):
        parse_line(listing(MAX_VALUES + 10))


@pytest.mark.parametrize("line", [b"[" * 500_000, b'{"a":' * 200_000, b'{"method":"pod_event","params":' + b"[" * 9000])
def test_deep_nesting_is_refused_and_crashes_nothing(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_line(line)
