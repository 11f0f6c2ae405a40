"""The parser, compared with the verdicts of the original runtime's parser (`docs/protocol.md`)."""

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
"""The original runtime parses this line and rejects the name later; podledger rejects the line."""

ACCEPTED = [vector for vector in VECTORS if vector["accepted"] and vector["line"] != NAMELESS]
REJECTED = [vector["line"] for vector in VECTORS if not vector["accepted"]] + [NAMELESS]


@pytest.mark.parametrize("vector", ACCEPTED, ids=lambda vector: vector["line"][:80])
def test_accepted_line_has_the_same_meaning(vector: dict[str, Any]) -> None:
    message = parse_line(vector["line"].encode())
    canonical = json.loads(vector["canonical"])
    if isinstance(message, Request):
        assert message.method == canonical["method"] != "pod_event"
    else:
        assert json.loads(message.event.payload()) == canonical["params"]


@pytest.mark.parametrize("line", REJECTED, ids=lambda line: line[:80])
def test_rejected_line_is_rejected(line: str) -> None:
    with pytest.raises(ProtocolError):
        parse_line(line.encode())


def test_vectors_are_complete() -> None:
    assert len(VECTORS) == len(ACCEPTED) + len(REJECTED) > 40
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
def test_order_of_members_does_not_matter(params: str) -> None:
    assert read(f'{{"method":"pod_event","params":{params}}}') == read(f'{{"params":{params},"method":"pod_event"}}')


@pytest.mark.parametrize("more", [-1, 0])
def test_order_of_members_does_not_change_the_depth(more: int) -> None:
    deep = "[" * (MAX_DEPTH - 1 + more) + "]" * (MAX_DEPTH - 1 + more)
    params = f'{{"kind":"turn_ended","pod_name":"a","x":{deep}}}'
    one, other = f'{{"method":"pod_event","params":{params}}}', f'{{"params":{params},"method":"pod_event"}}'
    assert read(one) == read(other)
    assert (read(one) is None) == (more == 0)


def read(line: str) -> Report | Request | None:
    """Return the message in a line, or None if the line is rejected."""
    try:
        return parse_line(line.encode())
    except ProtocolError:
        return None


def test_payload_keeps_its_exact_text() -> None:
    params = '{ "pod_name" : "child",\t"extra":1.50, "kind":"turn_ended" }'
    message = parse_line(f'{{"params":{params} , "method":"pod_event"}}'.encode())
    assert isinstance(message, Report)
    assert message.payload == params


@pytest.mark.parametrize("name", [".", "..", "a/b", "/", "nul\\u0000", "bell\\u0007", "x" * 256, "é" * 128])
def test_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(ProtocolError, match="pod_name"):
        parse_line(f'{{"method":"pod_event","params":{{"kind":"turn_ended","pod_name":"{name}"}}}}'.encode())


@pytest.mark.parametrize("kind", ["pod_spawned", "pod_exited", "pod_unreachable", "pod_reclaimed"])
def test_fact_of_the_owner_is_rejected_on_the_wire(kind: str) -> None:
    params = {"kind": kind, "pod_name": "a", "socket_path": "/s", "scope": [], "exit_code": 0, "reason": "x"}
    with pytest.raises(ProtocolError, match=kind):
        parse_line(json.dumps({"method": "pod_event", "params": params}).encode())


@pytest.mark.parametrize("stamp", [None, 7, [], {}, {"id": "x"}, {"id": "0" * 36, "sequence": 0}])
def test_malformed_stamp_is_dropped(stamp: object) -> None:
    params = {"kind": "turn_ended", "pod_name": "child", "stamp": stamp}
    message = parse_line(json.dumps({"method": "pod_event", "params": params}).encode())
    assert isinstance(message, Report)
    assert message.event.stamp is None


def listing(values: int) -> bytes:
    """Return a line with `values` values: a delegation with a long scope."""
    rules = ",".join(['{"target":"/a,b\\",","permission":"read"}'] * ((values - 4) // 2))
    params = f'"kind":"scope_sub_delegated","parent_pod":"a","sub_pod":"b","sub_socket":"/s","scope":[{rules}]'
    return f'{{"method":"pod_event","params":{{{params}}}}}'.encode()


def test_line_with_too_many_values_is_rejected() -> None:
    """A comma inside a string does not count."""
    assert parse_line(listing(MAX_VALUES - 2))
    text = json.dumps({"kind": "errored", "pod_name": "a", "message": '"},\\",' * 50_000})
    assert parse_line(f'{{"method":"pod_event","params":{text}}}'.encode())
    with pytest.raises(ProtocolError, match="more than 10,000 values"):
        parse_line(listing(MAX_VALUES + 10))


@pytest.mark.parametrize("line", [b"[" * 500_000, b'{"a":' * 200_000, b'{"method":"pod_event","params":' + b"[" * 9000])
def test_deep_nesting_is_rejected(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_line(line)


@pytest.mark.parametrize(
    ("socket", "targets", "reason"),
    [
        ("/s" * 2049, ["/w"], "scope_sub_delegated.sub_socket: a path of more than 4,096 bytes"),
        ("/\U0001f600" * 1000, ["/w"], "scope_sub_delegated.sub_socket: a path of more than 4,096 bytes"),
        ("/s", ["/w", "/w" * 2049], "scope_sub_delegated.scope.1.target: a path of more than 4,096 bytes"),
        ("/s", ["/w" * 2048] * 33, "scope_sub_delegated.scope: its paths are longer than 131,072 bytes together"),
    ],
)
def test_paths_that_are_too_long_are_refused(socket: str, targets: list[str], reason: str) -> None:
    scope = [{"target": target, "permission": "read"} for target in targets]
    params = {"kind": "scope_sub_delegated", "parent_pod": "a", "sub_pod": "b", "sub_socket": socket, "scope": scope}
    with pytest.raises(ProtocolError) as caught:
        parse_line(json.dumps({"method": "pod_event", "params": params}).encode())
    assert caught.value.message == reason


def test_longest_paths_are_accepted() -> None:
    scope = [{"target": "/w" * 2048, "permission": "read"}] * 32
    params = {
        "kind": "scope_sub_delegated",
        "parent_pod": "a",
        "sub_pod": "b",
        "sub_socket": "/s" * 2048,
        "scope": scope,
    }
    assert isinstance(parse_line(json.dumps({"method": "pod_event", "params": params}).encode()), Report)
