"""Test the views: they agree with the library, and the anomalies are those that a search of the model finds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podledger.core.entries import Sender, draft
from podledger.core.events import Errored, LedgerEvent
from podledger.core.fields import ScopeRule
from podledger.core.times import timestamp
from podledger.queries import gaps, notifications
from podledger.queries.lineage import lineage
from podledger.store import append, log
from tests import strategies
from tests.given import OWNER, delegated, incarnation, reclaimed, spawned, stamped, stopped, turned, writes
from tests.model import Model, Span, is_delegation, reaches
from tests.support import VIEWS, Bench, connected, new_database

PATHS = ("/srv/app/a.txt", "/srv/app", "/srv", "/srv/app/deep/b.txt", "/srv/application/x", "/etc", "/")

HOLDERS = """
WITH covering AS (
    SELECT * FROM write_holders
    WHERE substr(:path || '/', 1, length(prefix)) = prefix
        AND (reach = 'all below' OR instr(substr(:path, length(prefix) + 1), '/') = 0)
)
SELECT DISTINCT pod_name, chain FROM covering AS c
WHERE NOT EXISTS (
    SELECT 1 FROM covering AS below
    WHERE below.from_seq <> c.from_seq AND instr(below.tenures, '/' || c.from_seq || '/'))
"""
"""The recipe of docs/sql.md for the holders of a path."""


def rows(bench: Bench, view: str, columns: str = "*") -> list[dict[str, Any]]:
    found = bench.connection.exec_driver_sql(f"SELECT {columns} FROM {view}")
    return [dict(row._mapping) for row in found]


def rule_words(scope: Iterable[dict[str, Any]]) -> str:
    return " ".join(f"{r['permission']}{'' if r['recursive'] else '-here'}:{r['target']}" for r in scope)


def anomalies(bench: Bench, what: str) -> list[tuple[int, str, str]]:
    return bench.sql(f"SELECT seq, pod_name, detail FROM anomalies WHERE what = '{what}' ORDER BY seq, detail")


# The schema


@pytest.mark.parametrize("name", VIEWS)
def test_verify_finds_a_dropped_or_altered_view(name: str) -> None:
    bench = Bench([turned("ada")])
    bench.connection.exec_driver_sql(f"DROP VIEW {name}")
    assert bench.verify().problems == ((("schema", None, f"view {name} is missing")),)
    bench.connection.exec_driver_sql(f"CREATE VIEW {name} AS SELECT 'all is well' AS detail")
    assert bench.verify().problems == ((("schema", None, f"view {name} was altered")),)


# The views agree with the library


@given(strategies.histories)
def test_tenure_parents_agrees_with_the_model(history: list[LedgerEvent]) -> None:
    bench, model = Bench(history), Model.of(history)
    query = "SELECT t.from_seq, p.from_seq FROM tenure_parents AS t LEFT JOIN tenures AS p ON p.rowid = t.parent"
    parents = {span.opened: model.parent(span) for span in model.spans}
    assert dict(bench.sql(query)) == {seq: parent and parent.opened for seq, parent in parents.items()}


@given(strategies.histories)
def test_chain_agrees_with_the_library(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    found = bench.sql("SELECT pod_name, from_seq, chain, tenures FROM write_holders")
    lines = lineage(bench.connection, OWNER, len(history), [(name, seq) for name, seq, _, _ in found])
    for name, seq, chain, tenures in found:
        line = lines[seq][::-1]
        assert chain.split("/") == [OWNER, *(ancestor.pod_name for ancestor in line), name]
        assert tenures.strip("/").split("/") == [str(number) for number in (*(above.from_seq for above in line), seq)]


def test_chain_keeps_the_tenure_of_a_respawned_grandparent() -> None:
    bench = Bench([spawned("top"), delegated("mid", parent="top"), stopped("top"), spawned("top")])
    bench.append(delegated("leaf", parent="mid", scope=writes("/srv")))
    assert bench.sql("SELECT tenures FROM write_holders") == [("/1/2/5/",)]


@given(strategies.histories)
def test_live_pods_is_the_registry_and_the_tree(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    found = {row["pod_name"]: row for row in rows(bench, "live_pods")}
    pods = bench.pods()
    assert found.keys() == {pod["pod_name"] for pod in pods}
    for pod in pods:
        row = found[pod["pod_name"]]
        same = ("socket_path", "callback_address", "parent_pod", "incarnation", "from_seq", "evidence")
        assert {name: row[name] for name in same} == {name: pod[name] for name in same}
        assert row["scope"] == rule_words(pod["scope_delegated"])
    assert {name: row["under"] for name, row in found.items()} == bench.tree()


@given(strategies.histories)
def test_pod_history_lists_every_tenure(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    found = [
        (row["pod_name"], row["from_seq"], row["until_seq"], row["closed_by"], rule_words_of(row))
        for row in sorted(rows(bench, "pod_history"), key=lambda row: (row["pod_name"], row["from_seq"]))
    ]
    pods = bench.pods(closed=True)
    expected = [
        (p["pod_name"], p["from_seq"], p["until_seq"], p["closed_by"], rule_words(p["scope_delegated"])) for p in pods
    ]
    assert found == expected


def rule_words_of(row: dict[str, Any]) -> str:
    assert (row["until"] is None) == (row["until_seq"] is None)
    return str(row["scope"])


@given(strategies.histories, st.sampled_from(PATHS))
def test_write_holders_answers_who_may_write_a_path(history: list[LedgerEvent], path: str) -> None:
    bench = Bench(history)
    found = {tuple(row) for row in bench.connection.exec_driver_sql(HOLDERS, {"path": path})}
    expected = {(holder.pod_name, "/".join(holder.chain)) for holder in bench.holders(path)}
    assert (found or {(OWNER, OWNER)}) == expected


@given(strategies.histories)
def test_holds_target_agrees_with_the_holders_of_the_target(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    for row in rows(bench, "write_holders"):
        holds = row["pod_name"] in {holder.pod_name for holder in bench.holders(row["target"])}
        assert row["holds_target"] == ("yes" if holds else "no")


def test_lent_on_lists_the_grants_of_descendants() -> None:
    bench = Bench(
        [
            spawned("planner", scope=writes("/srv")),
            delegated("coder", scope=writes("/srv/app"), parent="planner"),
            delegated("tester", scope=writes("/srv/app"), parent="coder"),
        ]
    )
    found = rows(bench, "write_holders", "pod_name, holds_target, lent_on, chain")
    assert [tuple(row.values()) for row in sorted(found, key=lambda row: row["chain"])] == [
        ("planner", "yes", "coder:/srv/app tester:/srv/app", "root/planner"),
        ("coder", "no", "tester:/srv/app", "root/planner/coder"),
        ("tester", "yes", None, "root/planner/coder/tester"),
    ]


@given(strategies.histories)
def test_gaps_agree_with_the_library(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    columns = "source, pod_name, first_missing, last_missing, after_seq, before_seq"
    found = bench.sql(f"SELECT {columns} FROM gaps ORDER BY before_seq, source")
    assert found == [tuple(gap) for gap in gaps.gaps_until(bench.connection, OWNER, len(history))]
    count = gaps.missing_until(bench.connection, OWNER, len(history))
    assert count == (sum(last - first + 1 for _, _, first, last, _, _ in found), len({row[0] for row in found}))


STEERING = "\n\r\t\b\f\x00\x01\x1b\x7f\x90\x9b\x9d\u202e\"'\\/ab 雪"
steering = st.text(st.sampled_from(STEERING.replace("\x00", "")), max_size=12)


@given(st.lists(steering, min_size=1, max_size=5))
def test_notification_line_agrees_with_the_library(messages: list[str]) -> None:
    bench = Bench([Errored(pod_name="coder", message=message) for message in messages])
    expected = notifications.unread(bench.connection, OWNER, "agent", 0, 100)
    assert bench.sql("SELECT line FROM notifications ORDER BY seq") == [
        (notification.line,) for notification in expected
    ]


def test_long_message_is_shortened_as_in_the_library() -> None:
    bench = Bench([Errored(pod_name="coder", message="x" * 10_000)])
    [notification] = notifications.unread(bench.connection, OWNER, "agent", 0, 100)
    assert bench.sql("SELECT line FROM notifications") == [(notification.line,)]


def test_damaged_message_makes_the_line_null() -> None:
    bench = Bench([Errored(pod_name="coder", message="no space left")])
    bench.connection.exec_driver_sql("DROP TRIGGER events_no_update")
    bench.connection.exec_driver_sql("UPDATE events SET payload = 'no space'")
    assert bench.sql("SELECT line FROM notifications") == [(None,)]


def test_duplicate_shutdown_makes_one_notification() -> None:
    bench = Bench([spawned("ada"), stopped("ada"), stopped("ada")])
    assert bench.sql("SELECT seq FROM notifications") == [(2,)]


@given(strategies.histories)
def test_event_log_shows_each_entry_with_readable_times(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    entries = log.read_all(bench.connection, OWNER)
    found = rows(bench, "event_log")
    assert [row["seq"] for row in found] == list(range(1, len(history) + 1))
    for row, event in zip(found, history, strict=True):
        assert row["sent_at"] == (timestamp(event.stamp.sent_us) if event.stamp else None)
        assert (row["parent_pod"] is not None) == is_delegation(event)
    assert [row["recorded_at"] for row in found] == [timestamp(entry.recorded_us) for entry in entries]


def test_times_before_1970_keep_six_decimals() -> None:
    event = turned("ada")
    stamp = stamped(event, 1).stamp
    assert stamp is not None
    early = stamp.model_copy(update={"time": "1969-12-31T23:59:58.000001Z"})
    bench = Bench([event.model_copy(update={"stamp": early})])
    assert bench.sql("SELECT sent_at FROM event_log") == [("1969-12-31T23:59:58.000001Z",)]


# The anomalies agree with the model


@given(strategies.histories)
def test_odd_outcomes_are_anomalies(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    odd = ("conflict", "late", "revived", "unknown")
    expected = [(seq, what) for seq, what in enumerate(Model.of(history).outcomes, 1) if what in odd]
    listed = ", ".join(f"'{what}'" for what in odd)
    assert bench.sql(f"SELECT seq, what FROM anomalies WHERE what IN ({listed}) ORDER BY seq") == expected


@given(strategies.histories)
def test_write_grants_of_unrelated_pods_that_met_are_anomalies(history: list[LedgerEvent]) -> None:
    bench, model = Bench(history), Model.of(history)
    expected = sorted(met for one, other in combinations(model.spans, 2) for met in meetings(model, one, other))
    found = sorted((seq, pod_name) for seq, pod_name, _ in anomalies(bench, "overlapping_write"))
    assert found == expected


def meetings(model: Model, one: Span, other: Span) -> Iterator[tuple[int, str]]:
    """Yield the seq and the pod of each pair of write rules that overlap, of two unrelated tenures that overlap."""
    first, second = sorted((one, other), key=lambda span: span.opened)
    if first.closed is not None and first.closed <= second.opened:
        return
    if any(above is other for above in model.ancestors(one)) or any(above is one for above in model.ancestors(other)):
        return
    for rule in first.content[1]:
        for met in second.content[1]:
            if rule.permission == met.permission == "write" and common(rule, met):
                yield second.opened, second.name


def probes(*rules: ScopeRule) -> list[str]:
    return [f"{rule.target}{below}" for rule in rules for below in ("", "/q", "/q/r", "/q/r/s")]


def common(one: ScopeRule, other: ScopeRule) -> bool:
    return any(reaches(one, path) and reaches(other, path) for path in probes(one, other))


@given(strategies.histories)
def test_rule_wider_than_the_parent_scope_is_an_anomaly(history: list[LedgerEvent]) -> None:
    bench, model = Bench(history), Model.of(history)
    expected = []
    for span in model.spans:
        parent = model.parent(span)
        if parent is not None and is_delegation(history[span.opened - 1]):
            wider = [rule for rule in span.content[1] if not within(rule, parent.content[1])]
            expected += [(span.opened, span.name)] * len(wider)
    found = [(seq, name) for seq, name, _ in anomalies(bench, "wider_than_parent")]
    assert sorted(found) == sorted(expected)


def within(rule: ScopeRule, scope: Iterable[ScopeRule]) -> bool:
    """Return whether the scope reaches each path that the rule reaches, for writing if the rule is for writing."""
    lent = [other for other in scope if other.permission == "write" or rule.permission == "read"]
    reached = [path for path in probes(rule) if reaches(rule, path)]
    return all(any(reaches(other, path) for other in lent) for path in reached)


@given(strategies.histories)
def test_open_pod_whose_parent_has_ended_is_an_orphan(history: list[LedgerEvent]) -> None:
    bench, model = Bench(history), Model.of(history)
    standing = {span.name for span in model.spans if span.closed is None}
    expected = set()
    for span in model.spans:
        parent, named = model.parent(span), span.content[2]
        ended = parent is not None and parent.closed is not None
        nobody = parent is None and named != OWNER and named not in standing
        if span.closed is None and (ended or nobody):
            expected.add(span.name)
    assert {name for _, name, _ in anomalies(bench, "orphan")} == expected


def test_report_from_another_process_is_an_anomaly() -> None:
    bench = Bench()
    known, other, helper = Sender(100, 0, 0, "pod"), Sender(200, 0, 0, "other"), Sender(300, 0, 0, "descendant")
    spawn = spawned("ada").model_copy(update={"pid": 100})
    record(bench, spawn, None)
    record(bench, turned("ada"), known)
    record(bench, turned("ada"), other)
    record(bench, delegated("bob", parent="ada"), known)
    record(bench, delegated("cy", parent="ada"), other)
    record(bench, reclaimed("ada"), None)
    record(bench, turned("ada"), helper)
    record(bench, turned("bob"), Sender(200, 0, 0))
    assert anomalies(bench, "other_process") == [
        (3, "ada", "turn_ended by process 200 of user 0, where ada is process 100"),
        (5, "cy", "scope_sub_delegated by process 200 of user 0, where ada is process 100"),
    ]


def test_relative_path_is_an_anomaly_of_the_delegation() -> None:
    bench = Bench()
    record(bench, delegated("ada", "/run/ada", writes("/srv", "app", "")), None)
    record(bench, delegated("bob", "bob.sock", writes("/srv/../etc")), None)
    record(bench, delegated("cy", ""), None)
    record(bench, reclaimed("bob"), None)
    record(bench, turned("bob"), None)
    assert anomalies(bench, "relative_path") == [
        (1, "ada", "write:"),
        (1, "ada", "write:app"),
        (2, "bob", "socket bob.sock"),
    ]
    assert {holder.pod_name for holder in bench.holders("/home/app/x")} == {OWNER}


def record(bench: Bench, event: LedgerEvent, sender: Sender | None) -> None:
    append.append_batch(
        bench.connection,
        OWNER,
        bench.cache,
        [draft(event, OWNER, sender=sender)],
        [],
        now_us=2_000_000,
    )


def test_circular_parents_end_no_view() -> None:
    bench = Bench(
        [
            stamped(delegated("ada", parent="bob", scope=writes("/srv")), 1, speaker=2),
            stamped(delegated("bob", parent="ada", scope=writes("/srv")), 2, speaker=1),
        ]
    )
    for view in VIEWS:
        rows(bench, view)
    assert {row["pod_name"]: row["under"] for row in rows(bench, "live_pods")} == {"ada": "bob", "bob": "ada"}
    assert incarnation(1) < incarnation(2)


# Reading during a write


def test_every_view_is_readable_during_a_write(tmp_path: Path) -> None:
    path = new_database(tmp_path / "l.db")
    with connected(path) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("BEGIN IMMEDIATE")
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        for view in VIEWS:
            assert reader.execute(f"SELECT * FROM {view}").fetchall() == []
        reader.close()
        writer.execute("ROLLBACK")
