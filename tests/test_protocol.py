"""The wire models against the lines, with verdicts, of the seed system's own parser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podledger.errors import ProtocolError
from podledger.protocol import Report, Request, parse_line

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


@pytest.mark.parametrize("line", [b"[" * 500_000, b'{"a":' * 200_000, b'{"method":"pod_event","params":' + b"[" * 9000])
def test_deep_nesting_is_refused_and_crashes_nothing(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_line(line)
