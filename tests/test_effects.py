"""Effects: an applied delegation is owed to the parent once, in the transaction of the event."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from podledger.client.sender import line_of
from podledger.core.events import LedgerEvent, ScopeSubDelegated
from podledger.core.protocol import Report, parse_line
from podledger.ledger import Ledger
from podledger.store import outbox_rows
from tests.given import (
    OWNER,
    delegated,
    errored,
    exited,
    incarnation,
    reclaimed,
    spawned,
    stamped,
    stopped,
    turned,
    unreachable,
    writes,
)
from tests.support import Bench, change_outbox, connected, fresh_ledger, rows_of

PARENT = "/run/parent"


def owed(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(row.payload) for row in outbox_rows.read_outbox(bench.connection, OWNER)]


def told_of(events: list[LedgerEvent]) -> list[str]:
    """Return the pods that the parent hears of: by their name those delegated, with the kind before it those ended."""
    reports = owed(Bench(events, parent=PARENT))
    return [report.get("sub_pod") or f"{report['kind']} {report['pod_name']}" for report in reports]


def test_spawn_is_relayed_with_the_owner_as_parent() -> None:
    bench = Bench([spawned("p", "/run/p", writes("/srv"), "/run/me")], parent=PARENT)
    (payload,) = owed(bench)
    assert payload == {
        "kind": "scope_sub_delegated",
        "parent_pod": OWNER,
        "sub_pod": "p",
        "sub_socket": "/run/p",
        "scope": [{"target": "/srv", "permission": "write", "recursive": True}],
        "relay": {
            "kind": "pod_spawned",
            "evidence": "observed",
            "delegated_by": OWNER,
            "speaker": None,
            "path": [OWNER],
            "ledger": OWNER,
            "seq": 1,
            "digest": bench.sql("SELECT digest FROM events")[0][0],
        },
    }


def test_wire_delegation_is_relayed_with_the_owner_as_parent() -> None:
    (payload,) = owed(Bench([delegated("p", parent="mid")], parent=PARENT))
    relay = payload["relay"]
    assert (payload["parent_pod"], payload["sub_pod"]) == (OWNER, "p")
    assert (relay["delegated_by"], relay["path"]) == ("mid", [OWNER, "mid"])


def test_unsent_report_uses_no_sequence_number() -> None:
    """A sequence number used up by a failed commit or an unsent report would look like a loss to the parent."""
    bench = Bench([stamped(delegated("p"), 7, 5, sequence=9)], parent=PARENT)
    assert [payload["stamp"] for payload in owed(bench)] == [{"subject": incarnation(7)}]


def test_relayed_report_is_accepted_by_a_receiver() -> None:
    for payload in owed(Bench([spawned("p", scope=writes("/é")), stamped(delegated("q"), 7, 5)], parent=PARENT)):
        report = parse_line(line_of(payload).rstrip(b"\n"))
        assert isinstance(report, Report)
        assert isinstance(report.event, ScopeSubDelegated)


NOT_TOLD: dict[str, list[LedgerEvent]] = {
    "duplicate": [delegated("p"), delegated("p")],
    "conflict": [delegated("p"), delegated("p", "/run/other")],
    "late": [stamped(delegated("p"), 5), stamped(delegated("p"), 4)],
    "noted": [delegated("p"), turned("p"), errored("p", "no"), unreachable("p")],
    "unknown": [delegated("p"), turned("q"), stopped("q")],
}


@pytest.mark.parametrize("events", NOT_TOLD.values(), ids=NOT_TOLD)
def test_nothing_else_is_relayed(events: list[LedgerEvent]) -> None:
    assert told_of(events) == ["p"]


def relayed_ends(*events: LedgerEvent) -> list[tuple[str, str, str, str | None]]:
    """Return kind, original kind, original evidence and subject of the reports that follow the delegations."""
    return [
        (report["kind"], report["relay"]["kind"], report["relay"]["evidence"], report.get("stamp", {}).get("subject"))
        for report in owed(Bench(events, parent=PARENT))
        if report["kind"] != "scope_sub_delegated"
    ]


@pytest.mark.parametrize(
    ("end", "kind", "evidence"),
    [(stopped, "shut_down", "reported"), (exited, "pod_exited", "observed"), (reclaimed, "pod_reclaimed", "inferred")],
)
@pytest.mark.parametrize("subject", [None, 5])
def test_end_is_relayed_as_a_shutdown(
    end: Callable[[str], LedgerEvent], kind: str, evidence: str, subject: int | None
) -> None:
    expected = None if subject is None else incarnation(subject)
    assert relayed_ends(stamped(delegated("p"), subject), end("p")) == [("shut_down", kind, evidence, expected)]


def test_confirmed_end_is_relayed_too() -> None:
    ends = relayed_ends(stamped(delegated("p"), 5), reclaimed("p"), stamped(stopped("p"), 5), stamped(stopped("p"), 5))
    assert [kind for _, kind, _, _ in ends] == ["pod_reclaimed", "shut_down"]


def test_revival_is_relayed_without_its_message() -> None:
    assert relayed_ends(delegated("p"), reclaimed("p"), turned("p"))[1][:2] == ("turn_ended", "turn_ended")
    bench = Bench([delegated("p"), reclaimed("p"), errored("p", "a secret")], parent=PARENT)
    assert "a secret" not in str(owed(bench))
    assert owed(bench)[-1]["message"] == f"the message is in the ledger of {OWNER}"


def test_late_delegation_relays_the_end_of_the_tenure_it_closed() -> None:
    ends = relayed_ends(stamped(delegated("p"), 5), stamped(stopped("p"), 6), stamped(delegated("p"), 6))
    assert ends == [("shut_down", "scope_sub_delegated", "reported", incarnation(5))]


def test_relay_of_a_relay_keeps_the_original_kind() -> None:
    below = Bench([spawned("p"), exited("p")], parent=PARENT)
    wire = [parse_line(line_of(report).rstrip(b"\n")) for report in owed(below)]
    above = Bench([report.event for report in wire if isinstance(report, Report)], owner="top", parent=PARENT)
    *_, end = (json.loads(row.payload) for row in outbox_rows.read_outbox(above.connection, "top"))
    assert (end["kind"], end["relay"]["kind"], end["relay"]["evidence"]) == ("shut_down", "pod_exited", "observed")
    assert (end["relay"]["ledger"], end["relay"]["seq"]) == ("top", 2)
    assert above.pods() == []


def test_restart_is_relayed_again() -> None:
    assert told_of([delegated("p"), stopped("p"), delegated("p")]) == ["p", "shut_down p", "p"]
    assert told_of([stamped(delegated("p", "/1"), 5), stamped(delegated("p", "/2"), 6)]) == ["p", "p"]


def test_without_a_parent_nothing_is_relayed() -> None:
    assert owed(Bench([spawned("p"), delegated("q")])) == []


async def test_report_goes_to_the_parent_of_its_time() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("a"))
        for socket in ("/run/1", "/run/2", ""):
            await ledger.configure(parent_socket=socket)
            await ledger.append(spawned(f"b{socket[-1:]}"))
        assert [(row.seq, row.socket, row.status) for row in await ledger.outbox_items()] == [
            (2, "/run/1", "pending"),
            (3, "/run/2", "pending"),
        ]


async def test_report_is_written_with_its_event() -> None:
    """A reader sees either both the event and its report, or neither."""
    async with fresh_ledger() as ledger:
        await ledger.configure(parent_socket=PARENT)
        with connected(ledger.database.path) as other:
            other.execute("CREATE TRIGGER fails BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no'); END")
            with pytest.raises(Exception, match="no"):
                await ledger.append(spawned("p"))
            other.execute("DROP TRIGGER fails")
        assert (await ledger.pods(), await ledger.outbox_items()) == ([], [])
        await ledger.append(spawned("p"))
        assert [row.number for row in await ledger.outbox_items()] == [1]
        assert (await ledger.verify()).ok


async def test_result_of_sending_is_kept() -> None:
    async with fresh_ledger() as ledger:
        await ledger.configure(parent_socket=PARENT)
        await ledger.append_many([spawned("p"), spawned("q")])
        first, second = await ledger.outbox_items()
        await change_outbox(ledger, first._replace(status="discarded", attempts=5, last_error="refused", settled_us=7))
        assert await ledger.outbox_items(status="pending") == [second]
        (discarded,) = await ledger.outbox_items(status="discarded")
        assert (discarded.attempts, discarded.last_error, discarded.payload) == (5, "refused", first.payload)
        assert (await ledger.verify()).ok


async def test_restored_entries_are_not_relayed() -> None:
    async with fresh_ledger() as source, fresh_ledger() as copy:
        await source.append_many([spawned("p"), delegated("q")])
        await copy.configure(parent_socket=PARENT)
        assert await copy.commits.restore([entry async for entry in source.entries()]) == []
        assert await copy.outbox_items() == []


async def test_outbox_is_read_in_pages() -> None:
    bench = Bench([spawned(f"p{number}") for number in range(7)], parent=PARENT)
    first = outbox_rows.read_outbox(bench.connection, OWNER, limit=5)
    rest = outbox_rows.read_outbox(bench.connection, OWNER, after=first[-1].number, limit=5)
    assert [row.number for row in (*first, *rest)] == list(range(1, 8))


async def test_each_ledger_has_its_own_outbox() -> None:
    async with fresh_ledger() as ledger, Ledger.open(ledger.database.path, "other") as other:
        for one, socket in ((ledger, "/run/1"), (other, "/run/2")):
            await one.configure(parent_socket=socket)
            await one.append(spawned("p"))
        rows = rows_of(ledger.database.path, "outbox")["outbox"]
        assert [(row[0], row[1], row[3]) for row in rows] == [("other", 1, "/run/2"), (OWNER, 1, "/run/1")]
