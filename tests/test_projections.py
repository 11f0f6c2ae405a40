"""The laws of docs/rules.md: the projections follow from the log, in whatever order it arrived."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podledger.core import rules
from podledger.core.errors import DamagedError
from podledger.core.events import LedgerEvent
from podledger.core.rules import UNHEARD
from podledger.ledger import Ledger
from podledger.store import driver, log, projections, rebuild
from podledger.store.log import Rejection
from podledger.store.projections import StateCache, load_states
from tests import strategies
from tests.given import OWNER, delegated, incarnation, reclaimed, spawned, stamped, stopped, turned, writes
from tests.model import EVIDENCE, Model, OriginalRegistry
from tests.support import KEPT, PROJECTIONS, Bench, change_outbox, connected, fresh_ledger, rows_of

SEED = ("pod_name", "socket_path", "scope_delegated", "callback_address")


def in_batches(events: Sequence[LedgerEvent], cuts: Sequence[int]) -> Iterator[Sequence[LedgerEvent]]:
    for start, end in pairwise([0, *cuts, len(events)]):
        if events[start:end]:
            yield events[start:end]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so small that every cache overflows and every page ends."""
    monkeypatch.setattr(projections, "MAX_CACHED", 1)
    monkeypatch.setattr(projections, "NAMES_A_QUERY", 1)
    monkeypatch.setattr(driver, "PAGE", 1)
    monkeypatch.setattr(log.read_page, "__defaults__", (2,))


# Law 1: a rebuild yields the same rows that appending left.


@given(st.data(), st.integers(2, 4))
def test_batch_sizes_do_not_change_the_rows(data: st.DataObject, rows_a_statement: int) -> None:
    history = data.draw(strategies.histories)
    one_by_one, chunks = Bench(), Bench()
    for event in history:
        one_by_one.append(event)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "ROWS_A_STATEMENT", rows_a_statement)
        at_once = Bench(history)
        for batch in in_batches(history, data.draw(strategies.cuts(len(history)))):
            chunks.append(*batch)
    assert at_once.rows(*PROJECTIONS) == one_by_one.rows(*PROJECTIONS) == chunks.rows(*PROJECTIONS)
    assert at_once.outcomes() == one_by_one.outcomes() == chunks.outcomes() == Model.of(history).outcomes


@given(strategies.histories, st.booleans())
def test_cold_cache_gives_the_same_rows(history: list[LedgerEvent], tight: bool) -> None:
    """A second process starts with an empty cache, so the stored states must always be current."""
    warm, cold = Bench(history), Bench()
    with pytest.MonkeyPatch.context() as patch:
        if tight:
            patch.setattr(projections, "MAX_CACHED", 1)
            patch.setattr(projections, "NAMES_A_QUERY", 1)
        for batch in in_batches(history, range(0, len(history), 2)):
            if not tight:
                cold.cache = StateCache()
            cold.append(*batch)
    assert cold.rows(*PROJECTIONS) == warm.rows(*PROJECTIONS)


def test_batch_loads_only_its_own_states() -> None:
    bench = Bench([spawned(f"p{number}") for number in range(50)])
    states = StateCache().load(bench.connection, OWNER, ["p7", "new"])
    assert {name: state.status for name, state in states.items()} == {"p7": "open", "new": "unheard"}


def test_state_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections, "MAX_CACHED", 10)
    bench = Bench()
    for number in range(50):
        bench.append(spawned(f"p{number}"), turned("p0"))
        head = log.read_head(bench.connection, OWNER)
        assert 1 <= len(bench.cache.load(bench.connection, OWNER, [], (head.head_digest, head.rebuilds))) <= 10
    assert bench.verify().ok


def test_state_cache_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wide character makes each other one of a text take four bytes of memory."""
    monkeypatch.setattr(projections, "MAX_CACHED_BYTES", 100_000)
    bench = Bench()
    for number in range(50):
        bench.append(spawned(f"p{number}", scope=writes(f"/{chr(0x1F600)}{'x' * 4000}")))
        head = log.read_head(bench.connection, OWNER)
        assert len(bench.cache.load(bench.connection, OWNER, [], (head.head_digest, head.rebuilds))) <= 8
    assert bench.verify().ok


@given(strategies.histories)
def test_rebuild_of_a_sound_log_finds_no_difference(history: list[LedgerEvent]) -> None:
    assert Bench(history).verify().problems == ()


@pytest.mark.usefixtures("tiny")
@given(strategies.histories)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rebuild_in_tiny_pages_finds_no_difference(history: list[LedgerEvent]) -> None:
    bench = Bench()
    for event in history:
        bench.append(event)
    assert bench.verify().problems == ()


WRECKS = (
    "DELETE FROM {table}",
    "DELETE FROM {table} WHERE rowid % 2",
    "UPDATE {table} SET pod_name = pod_name || 'x'",
    "UPDATE {table} SET ledger = ledger",
)


@settings(max_examples=30)
@given(st.data())
def test_rebuild_restores_every_row(data: st.DataObject) -> None:
    history = data.draw(strategies.histories)
    wrecks = {table: data.draw(st.sampled_from(WRECKS)) for table in PROJECTIONS}
    page = data.draw(st.sampled_from((1, 2, 5_000)))
    named = data.draw(st.sampled_from((0, 1, 1_000)))

    async def check() -> None:
        async with fresh_ledger() as ledger:
            for batch in in_batches(history, range(0, len(history), 4)):
                await ledger.append_many(batch)
            before = rows_of(ledger.database.path, *PROJECTIONS)
            with connected(ledger.database.path) as stranger:
                for table, wreck in wrecks.items():
                    stranger.execute(wreck.format(table=table))
            await ledger.rebuild()
            assert rows_of(ledger.database.path, *PROJECTIONS) == before
            assert await ledger.rebuild() == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "PAGE", page)
        patch.setattr(rebuild, "PAGE", page)
        patch.setattr(rebuild, "MAX_NAMED", named)
        asyncio.run(check())


async def test_rebuild_reads_turns_that_revive() -> None:
    """An unstamped turn changes a projection only after a reclaim, and a rebuild must read that one."""
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), turned("p"), reclaimed("p"), turned("p"), turned("q")])
        before = rows_of(ledger.database.path, *PROJECTIONS)
        with connected(ledger.database.path) as stranger:
            stranger.execute("DELETE FROM tenures")
        assert await ledger.rebuild() == 2
        assert rows_of(ledger.database.path, *PROJECTIONS) == before


async def test_rebuild_handles_names_of_any_script() -> None:
    """The log and the tables are in the same order, whatever characters a name has."""
    names = ["z", "é", "Z", "\u20ac", "\uffdd", "\U0001f600", "zz", "z\u0301"]
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned(name, scope=writes("/srv")) for name in names])
        before = rows_of(ledger.database.path, *PROJECTIONS)
        with connected(ledger.database.path) as stranger:
            stranger.execute("UPDATE tenures SET pod_name = pod_name || 'x' WHERE from_seq % 2")
            stranger.execute("DELETE FROM grants WHERE from_seq % 3 = 0")
        assert await ledger.rebuild() == 4 + 4 + 2
        assert rows_of(ledger.database.path, *PROJECTIONS) == before


@pytest.mark.parametrize("name", ["a\0b", "", "x" * 5_000, '"', "\\", 7, 1.5, b"blob", None])
async def test_rebuild_removes_rows_with_impossible_names(name: object) -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([spawned("p"), spawned("q")])
        before = rows_of(ledger.database.path, *PROJECTIONS)
        with connected(ledger.database.path) as stranger:
            loosen(stranger, "pods")
        with connected(ledger.database.path) as stranger:
            stranger.execute("INSERT INTO pods (ledger, pod_name, status) VALUES (?, ?, 'ended')", (OWNER, name))
        assert await ledger.rebuild() == 1
        assert rows_of(ledger.database.path, *PROJECTIONS) == before


def loosen(stranger: sqlite3.Connection, table: str) -> None:
    """Remove the constraints of a table, as anyone could who may write to the file."""
    stranger.execute("PRAGMA writable_schema = ON")
    for word in ("STRICT", "NOT NULL", "TEXT"):
        stranger.execute("UPDATE sqlite_master SET sql = replace(sql, ?, '') WHERE name = ?", (word, table))
    [version] = stranger.execute("PRAGMA schema_version").fetchone()
    stranger.execute(f"PRAGMA schema_version = {version + 1}")


async def test_value_of_wrong_type_is_reported_as_damage() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append_many([stamped(spawned("p"), 1), stamped(stopped("p"), 1)])
        with connected(ledger.database.path) as stranger:
            loosen(stranger, "events")
            stranger.execute("DROP TRIGGER events_no_update")
        with connected(ledger.database.path) as stranger:
            stranger.execute("UPDATE events SET subject = 7 WHERE seq = 2")
        with pytest.raises(DamagedError):
            await ledger.rebuild()
        with connected(ledger.database.path) as stranger:
            stranger.execute("UPDATE events SET payload = NULL WHERE seq = 2")
        assert not (await ledger.verify()).ok


async def test_append_onto_missing_tenure_is_damage() -> None:
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p"))
        with connected(ledger.database.path) as stranger:
            stranger.execute("DELETE FROM tenures")
        async with Ledger.open(ledger.database.path) as other:
            with pytest.raises(DamagedError, match="is missing in the projections"):
                await other.append(turned("p"))
            await other.rebuild()
            assert (await other.append(turned("p"))).outcome == "noted"


async def test_rebuild_corrects_rows_appended_onto_wrong_ones() -> None:
    """A tenure is removed, so the next delegation opens one that it would not open by the log."""
    async with fresh_ledger() as ledger:
        await ledger.append(spawned("p"))
        with connected(ledger.database.path) as stranger:
            for table in PROJECTIONS:
                stranger.execute(f"DELETE FROM {table}")
        async with Ledger.open(ledger.database.path) as other:
            assert (await other.append(spawned("p"))).outcome == "applied"
        await ledger.rebuild()
        assert [(pod.pod_name, pod.from_seq) for pod in await ledger.pods()] == [("p", 1)]
        assert [problem.check for problem in (await ledger.verify()).problems] == ["outcome"]


# Law 2: order, repetition and loss of stamped events do not change the registry and the grants.


def known(bench: Bench) -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    pods = [{field: pod[field] for field in (*SEED, "incarnation", "parent_pod")} for pod in bench.pods()]
    grants = bench.sql("SELECT pod_name, position, target, permission, recursive FROM grants WHERE until_seq IS NULL")
    return pods, sorted(grants)


@settings(max_examples=150)
@given(strategies.deliveries(strategies.stories()))
def test_stamped_events_may_be_shuffled_and_repeated(
    orders: tuple[list[LedgerEvent], list[LedgerEvent]],
) -> None:
    one, other = orders
    assert known(Bench(one)) == known(Bench(other))


@given(strategies.stories())
def test_only_ended_incarnations_are_late_in_sent_order(story: list[LedgerEvent]) -> None:
    """Each incarnation in turn: its reports count until its end, and not after it."""
    bench = Bench(story)
    newest = {event.about: event.stamp.subject for event in story if event.stamp}
    assert {pod["pod_name"]: pod["incarnation"] for pod in bench.pods()}.items() <= newest.items()
    assert set(bench.outcomes()) <= {"applied", "duplicate", "noted", "late", "ignored", "unknown"}


def test_shutdown_before_its_delegation_wins() -> None:
    delegation, end = stamped(delegated("p"), 5, 1), stamped(stopped("p"), 5)
    assert Bench([delegation, end]).pods() == Bench([end, delegation]).pods() == []
    assert Bench([end, delegation]).outcomes() == ["unknown", "late"]


def test_restart_reported_before_the_old_end_wins() -> None:
    old = [stamped(delegated("p", "/run/old"), 5, 1), stamped(stopped("p"), 5)]
    new = [stamped(delegated("p", "/run/new"), 6, 1)]
    for order in ([*old, *new], [*new, *old], [old[0], *new, old[1]], [old[1], *new, old[0]]):
        assert [pod["socket_path"] for pod in Bench(order).pods()] == ["/run/new"]


# Law 3: for unstamped wire events the registry equals the original runtime's after every event.


@settings(max_examples=100)
@given(strategies.unstamped_reports)
def test_unstamped_reports_equal_the_original_runtime(history: list[LedgerEvent]) -> None:
    original, bench = OriginalRegistry(), Bench(history)
    for seq, event in enumerate(history, 1):
        original.apply(event)
        then = sorted(original.records, key=lambda record: str(record["pod_name"]))
        pods = [{field: pod[field] for field in SEED} for pod in bench.pods(seq)]
        assert [pod["pod_name"] for pod in pods] == [record["pod_name"] for record in then]
        for pod, record in zip(pods, then, strict=True):
            assert pod | ({} if record["callback_address"] else {"callback_address": ""}) == record


@settings(max_examples=30)
@given(strategies.unstamped_reports)
def test_live_registry_equals_the_original_runtime(history: list[LedgerEvent]) -> None:
    """The registry of now, read as each event arrives."""
    original, bench = OriginalRegistry(), Bench()
    for event in history:
        original.apply(event)
        bench.append(event)
        fields = ("pod_name", "socket_path", "scope_delegated")
        by_name = sorted(original.records, key=lambda record: str(record["pod_name"]))
        assert [[pod[field] for field in fields] for pod in bench.pods()] == [
            [record[field] for field in fields] for record in by_name
        ]


# Law 4: invariants.


@given(strategies.histories)
def test_invariants_hold_after_every_event(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    tenures = bench.sql("SELECT pod_name, from_seq, until_seq, scope, opened_evidence FROM tenures ORDER BY 1, 2")
    for (name, _, until, *_), (other, start, *_) in pairwise(tenures):
        assert name != other or (until is not None and until <= start), "two tenures of a name overlap"
    for name, start, until, _, evidence in tenures:
        opening, outcome = history[start - 1], bench.outcomes()[start - 1]
        assert (opening.about, outcome in ("applied", "revived")) == (name, True)
        assert (until is None or start < until <= len(history), EVIDENCE[opening.kind]) == (True, evidence)
    spans = {(name, start): until for name, start, until, *_ in tenures}
    for name, start, until in bench.sql("SELECT pod_name, from_seq, until_seq FROM grants"):
        assert spans[name, start] == until, "a grant outlives its tenure"


@given(strategies.histories)
def test_each_grant_is_one_rule_of_its_scope(history: list[LedgerEvent]) -> None:
    bench, model = Bench(history), Model.of(history)
    stored = bench.sql("SELECT pod_name, from_seq, position, target, permission, recursive, until_seq FROM grants")
    lent = [
        (span.name, span.opened, position, rule.target, rule.permission, int(rule.recursive), span.closed)
        for span in model.spans
        for position, rule in enumerate(span.content[1])
    ]
    assert sorted(stored) == sorted(lent)


@given(strategies.histories)
def test_stored_states_equal_the_model(history: list[LedgerEvent]) -> None:
    bench, model = Bench(history), Model.of(history)
    states = load_states(bench.connection, OWNER, list(strategies.NAMES))
    for name, expected in model.names.items():
        state = states.get(name, UNHEARD)
        assert (state.newest, state.status) == (expected.newest, expected.status)
        if expected.status in ("open", "inferred"):
            assert expected.last is not None
            assert state.tenure is not None
            assert (state.tenure.from_seq, state.tenure.until_seq) == (expected.last.opened, expected.last.closed)


# Law 5: a replay has no effect outside the projection tables.


async def _everything_happened(ledger: Ledger) -> None:
    """A ledger with a row in every table, one of its three reports to the parent sent."""
    await ledger.configure(parent_socket="/run/parent")
    await ledger.append_many([spawned("p", scope=writes("/srv")), delegated("q"), turned("p"), stopped("q")])
    await ledger.commits.append([], [Rejection(b"no event", "not JSON", None)])
    await ledger.acknowledge(3)
    first, *_ = await ledger.outbox_items()
    await change_outbox(ledger, first._replace(status="sent", attempts=1, settled_us=1))


async def test_rebuild_and_verify_change_only_projections() -> None:
    async with fresh_ledger() as ledger:
        await _everything_happened(ledger)
        path, before = ledger.database.path, await ledger.head()
        kept = rows_of(path, *KEPT)
        with connected(path) as stranger:
            stranger.execute("DELETE FROM tenures")
        await ledger.rebuild()
        assert (await ledger.verify()).ok
        assert rows_of(path, *KEPT) == kept
        assert all(kept.values()), "a table was empty, and so proves nothing"
        assert (await ledger.head())._replace(rebuilds=0, row_checksum="") == before._replace(
            rebuilds=0, row_checksum=""
        )


async def test_rebuild_sends_and_notifies_nothing() -> None:
    async with fresh_ledger() as ledger:
        await _everything_happened(ledger)
        unsent, untold = await ledger.outbox_items(status="pending"), await ledger.notifications()
        await ledger.rebuild()
        assert await ledger.outbox_items(status="pending") == unsent
        assert await ledger.notifications() == untold
        assert [line.seq for line in untold] == [4]


# Law 6: repetition and order do not change what the agent is notified of.


@given(strategies.deliveries(strategies.stories()))
def test_each_stamped_event_notifies_once(orders: tuple[list[LedgerEvent], list[LedgerEvent]]) -> None:
    for arrived in orders:
        told = Counter(
            Bench(arrived).sql(
                "SELECT e.kind, e.source, e.sequence FROM notifications n JOIN events e ON e.seq = n.seq"
            )
        )
        sent = {(event.kind, event.stamp.source, event.stamp.sequence) for event in arrived if event.stamp}
        assert set(told.values()) <= {1}
        assert {key for key in told if key[0] != "shut_down"} == {
            key for key in sent if key[0] in ("turn_ended", "errored")
        }
        assert {key[1] for key in told if key[0] == "shut_down"} == {key[1] for key in sent if key[0] == "shut_down"}


def test_ledgers_of_one_database_do_not_mix() -> None:
    """Every key begins with the ledger: the same names in another ledger are other pods."""
    bench = Bench([spawned("p", "/run/1"), turned("p")])
    log.make_ledger(bench.connection, "other", 1)
    before = bench.rows(*PROJECTIONS)
    bench.owner, bench.cache = "other", StateCache()
    assert [entry.seq for entry in bench.append(spawned("p", "/run/2"), stopped("p"))] == [1, 2]
    bench.owner = OWNER
    after = {table: [row for row in rows if row[0] == OWNER] for table, rows in bench.rows(*PROJECTIONS).items()}
    assert after == before
    assert bench.verify().ok


def test_outcome_is_logged_with_the_rules_version() -> None:
    bench = Bench([stamped(delegated("p"), 3), stamped(turned("p"), 2)])
    assert bench.sql("SELECT outcome, rules FROM events") == [("applied", rules.VERSION), ("late", rules.VERSION)]
    assert bench.pods()[0]["incarnation"] == incarnation(3)
