"""After an incident: explain, diff, gaps, holders and replay, in the library and on the command line."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from podledger.core.entries import Entry
from podledger.core.errors import InvalidMomentError, UsageError
from podledger.core.events import LedgerEvent
from podledger.core.fields import Stamp
from podledger.core.rules import fact_of
from podledger.ledger import Ledger
from podledger.queries import diff, gaps, replay
from podledger.queries.explain import PodHistory
from podledger.queries.replay import ChangedOutcome, ReplayOptions, ReplayResult
from podledger.store.database import Database
from podledger.store.log import read_all
from tests import strategies
from tests.given import (
    OWNER,
    delegated,
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
from tests.model import Model
from tests.runner import podledger, podledger_json
from tests.support import Bench, connected, ledger_of, rows_of, without_times

TABLES = ("events", "tenures", "grants", "pods", "outbox", "consumers", "ledgers")


def written(folder: Path, *events: LedgerEvent) -> Path:
    """Write a history to the ledger `podledger.db` in `folder`; return the folder."""
    ledger_of(folder / "podledger.db", *events)
    return folder


# explain


def reasons(*events: LedgerEvent) -> list[str]:
    """Why each event of the pod `ada` had its outcome."""
    bench = Bench(events)
    story = PodHistory("ada")
    entries = [entry for entry in read_all(bench.connection, OWNER) if entry.pod_name == "ada"]
    return [story.explain(entry, fact_of(entry, OWNER)).because for entry in entries]


REPEATED = stamped(turned("ada"), 1)


@pytest.mark.parametrize(
    ("events", "last"),
    [
        ([turned("ada")], "unknown: nothing was known of this pod"),
        ([stopped("ada")], "unknown: nothing was known of this pod"),
        ([spawned("ada")], "opened a tenure"),
        ([spawned("ada"), turned("ada")], "noted: the pod was in the registry, and stays there"),
        ([spawned("ada"), spawned("ada")], "duplicate: same as the delegation of seq 1"),
        (
            [spawned("ada"), spawned("ada", "/run/other")],
            "conflict: same name, other socket; the first, of seq 1, is kept",
        ),
        (
            [spawned("ada"), delegated("ada", "/run/other", writes("/srv"))],
            "conflict: same name, other socket and other scope and other parent; the first, of seq 1, is kept",
        ),
        ([turned("bob"), spawned("ada"), stopped("ada")], "ended the tenure from seq 2"),
        ([spawned("ada"), stopped("ada"), turned("ada")], "late: reported after the pod had stopped at seq 2"),
        ([spawned("ada"), stopped("ada"), exited("ada")], "duplicate: the pod had stopped at seq 2 already"),
        ([spawned("ada"), stopped("ada"), spawned("ada")], "opened a tenure: the one before had stopped at seq 2"),
        ([spawned("ada"), unreachable("ada")], "noted: a suspicion, which changes nothing"),
        ([unreachable("ada")], "ignored: the pod was not in the registry"),
        ([reclaimed("ada")], "ignored: the pod was not in the registry"),
        (
            [spawned("ada"), reclaimed("ada")],
            "ended the tenure from seq 1; a report from the pod would bring it back",
        ),
        (
            [spawned("ada"), reclaimed("ada"), turned("ada")],
            "revived: it reported after it had been reclaimed at seq 2; a report outweighs what was inferred",
        ),
        (
            [spawned("ada"), reclaimed("ada"), stopped("ada")],
            "confirmed: it had been reclaimed at seq 2, and now its end is known for certain",
        ),
        (
            [stamped(spawned("ada"), 1), stamped(spawned("ada", "/run/2"), 2)],
            "superseded the tenure from seq 1: another incarnation was delegated; opened a tenure",
        ),
        (
            [stamped(spawned("ada"), 2), stamped(turned("ada"), 1)],
            "late: it is about an earlier incarnation; a newer one is known since seq 1",
        ),
        (
            [stamped(spawned("ada"), 1), stamped(stopped("ada"), 1), spawned("ada"), stamped(turned("ada"), 1)],
            "late: it is about the incarnation before the unstamped delegation of seq 3",
        ),
        (
            [spawned("ada"), stamped(turned("ada"), 1)],
            "noted: the pod was in the registry, and stays there",
        ),
        (
            [stamped(turned("ada"), 1), stamped(turned("ada"), 1)],
            "unknown: this incarnation was never delegated here",
        ),
        (
            [stamped(stopped("ada"), 1)],
            "unknown: this incarnation was never delegated here; a delegation of it that follows is late",
        ),
        (
            [stamped(stopped("ada"), 1), stamped(delegated("ada"), 1)],
            "late: the end of this incarnation was reported before its delegation",
        ),
        (
            [stamped(spawned("ada"), 1), stamped(delegated("ada"), 2)],
            "conflict: the owner itself spawned the pod that is open since seq 1",
        ),
        (
            [REPEATED, REPEATED],
            "duplicate: it repeats an earlier entry, with the same source, sequence and id",
        ),
        (
            [stamped(spawned("ada"), 1), stamped(reclaimed("ada"), 1), stamped(spawned("ada"), 1)],
            "late: delegated after the pod had been reclaimed at seq 2",
        ),
    ],
)
def test_each_outcome_is_explained_in_words(events: list[LedgerEvent], last: str) -> None:
    assert reasons(*events)[-1] == last


WORDS = {
    "duplicate": "duplicate: ",
    "conflict": "conflict: ",
    "late": "late: ",
    "unknown": "unknown: ",
    "revived": "revived: ",
    "confirmed": "confirmed: ",
    "noted": "noted: ",
    "ignored": "ignored: ",
    "applied": " a",
}


@given(strategies.histories)
def test_reason_names_the_outcome_and_no_later_seq(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    stories = {name: PodHistory(name) for name in (*strategies.NAMES, "nobody")}
    for entry in read_all(bench.connection, OWNER):
        because = stories[entry.pod_name].explain(entry, fact_of(entry, OWNER)).because
        assert WORDS[entry.outcome] in because or entry.outcome == "applied"
        assert "logged as" not in because
        seqs = [int(word.strip(";:,")) for word in because.split() if word.strip(";:,").isdigit()]
        assert all(1 <= seq <= entry.seq for seq in seqs)


@given(strategies.histories)
def test_history_ends_with_the_registry_status(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    standing = {pod["pod_name"]: pod["from_seq"] for pod in bench.pods()}
    for name in strategies.NAMES:
        story = PodHistory(name)
        for entry in read_all(bench.connection, OWNER):
            if entry.pod_name == name:
                story.explain(entry, fact_of(entry, OWNER))
        expected = f"in its tenure from seq {standing[name]}" if name in standing else "is not in the registry"
        assert expected in story.status()


def test_explanation_names_an_outcome_of_older_rules() -> None:
    [entry] = list(read_all(Bench([turned("ada")]).connection, OWNER))
    older: Entry = entry._replace(outcome="noted", rules=0)
    because = PodHistory("ada").explain(older, fact_of(older, OWNER)).because
    assert because == "unknown: nothing was known of this pod (logged as 'noted', by version 0 of the rules)"


def test_explain_prints_each_event_with_its_reason(tmp_path: Path) -> None:
    folder = written(tmp_path, spawned("ada"), delegated("bob", parent="ada"), stopped("ada"), turned("ada"))
    found = podledger_json("explain", "ada", folder=folder)
    assert found.keys() == {"pod_name", "events"}
    assert [(event["seq"], event["outcome"], event["because"]) for event in found["events"]] == [
        (1, "applied", "opened a tenure"),
        (3, "applied", "ended the tenure from seq 1"),
        (4, "late", "late: reported after the pod had stopped at seq 3"),
    ]
    listed = podledger("events", "--pod", "ada", "--json", folder=folder).jsons()
    assert [{key: value for key, value in event.items() if key != "because"} for event in found["events"]] == listed
    assert len(podledger_json("explain", "ada", "--at", 3, folder=folder)["events"]) == 2
    assert podledger_json("explain", "nobody", folder=folder) == {"pod_name": "nobody", "events": []}


def test_explain_prints_the_status_of_the_pod(tmp_path: Path) -> None:
    folder = written(tmp_path, spawned("ada"), stopped("ada"))
    out = podledger("explain", "ada", folder=folder).out
    assert "pod_spawned, observed by the owner" in out
    assert out.endswith("ada is not in the registry: it stopped at seq 2\n")
    assert "nobody ever delegated it" in podledger("explain", "eve\x1b[2J", folder=folder).out


# diff


def snapshot(bench: Bench, at: int) -> dict[str, dict[str, Any]]:
    return {pod["pod_name"]: pod for pod in bench.pods(at)}


@given(strategies.histories, st.data())
def test_diff_equals_the_difference_of_two_registries(history: list[LedgerEvent], data: st.DataObject) -> None:
    bench = Bench(history)
    first, last = sorted(data.draw(st.tuples(st.integers(0, len(history)), st.integers(0, len(history)))))
    found = diff.diff(bench.connection, OWNER, first, last).as_json()
    then, now = snapshot(bench, first), snapshot(bench, last)
    by_change = {change: {pod["pod_name"] for pod in found["pods"] if pod["change"] == change} for change in CHANGES}
    assert by_change["appeared"] == now.keys() - then.keys()
    assert by_change["ended"] == then.keys() - now.keys()
    assert by_change["changed"] == {name for name in then.keys() & now.keys() if then[name] != now[name]}
    between = Model.of(history[:last]).spans
    passed = {span.name for span in between if span.opened > first and span.closed is not None}
    assert by_change["passed"] == passed - then.keys() - now.keys()
    for pod in found["pods"]:
        if pod["change"] != "passed":
            before, after = (side and without_times(side) for side in (pod["before"], pod["after"]))
            assert (before, after) == (then.get(pod["pod_name"]), now.get(pod["pod_name"]))
        for edge in (pod["ended"], pod["began"]):
            assert edge is None or first < edge["seq"] <= last
            assert edge is None or edge["kind"] == history[edge["seq"] - 1].kind


CHANGES = ("appeared", "ended", "changed", "passed")


@given(strategies.histories, st.data())
def test_diff_names_the_event_that_made_each_change(history: list[LedgerEvent], data: st.DataObject) -> None:
    bench = Bench(history)
    first, last = sorted(data.draw(st.tuples(st.integers(0, len(history)), st.integers(0, len(history)))))
    for pod in diff.diff(bench.connection, OWNER, first, last).pods:
        if pod.change in ("appeared", "changed"):
            assert pod.began is not None
            before, after = snapshot(bench, pod.began.seq - 1), snapshot(bench, pod.began.seq)
            assert before.get(pod.pod_name) != after.get(pod.pod_name)
        if pod.change == "ended":
            assert pod.ended is not None
            assert snapshot(bench, pod.ended.seq - 1).get(pod.pod_name) is not None


@given(strategies.histories, st.data())
def test_grants_diff_leads_from_one_moment_to_another(history: list[LedgerEvent], data: st.DataObject) -> None:
    bench = Bench(history)
    first, last = sorted(data.draw(st.tuples(st.integers(0, len(history)), st.integers(0, len(history)))))
    held = granted(bench, first)
    for grant in diff.diff(bench.connection, OWNER, first, last).grants:
        held[grant[0], *grant[2:5]] += 1 if grant.change == "appeared" else -1
    assert +held == granted(bench, last)


def granted(bench: Bench, at: int) -> Counter[Any]:
    pods = bench.pods(at)
    return Counter((pod["pod_name"], *rule.values()) for pod in pods for rule in pod["scope_delegated"])


def test_diff_prints_a_table_and_json(tmp_path: Path) -> None:
    folder = written(
        tmp_path, spawned("ada", scope=writes("/srv")), delegated("bob", scope=writes("/tmp")), stopped("ada")
    )
    found = podledger_json("diff", 1, 3, folder=folder)
    assert [(pod["pod_name"], pod["change"]) for pod in found["pods"]] == [("ada", "ended"), ("bob", "appeared")]
    assert found["grants"][0]["edge"] == {"seq": 3, "kind": "shut_down"}
    out = podledger("diff", 1, 3, folder=folder).out
    assert "scope_sub_delegated at seq 2" in out
    assert "write:/tmp" in out
    assert "no pod changed" in podledger("diff", 3, 3, folder=folder).out
    podledger("diff", 3, 1, folder=folder, status=2)
    podledger("diff", 1, 9, folder=folder, status=2)


def test_diff_refuses_moments_in_reverse() -> None:
    with pytest.raises(InvalidMomentError):
        diff.diff(Bench([turned("ada"), turned("ada")]).connection, OWNER, 2, 1)


# gaps


@st.composite
def lossy(draw: st.DrawFn) -> tuple[list[LedgerEvent], dict[int, set[int]]]:
    """Generate reports of three senders, some lost and the rest shuffled, and the losses that later reports reveal."""
    sent = [(source, sequence) for source in range(1, 4) for sequence in range(1, draw(st.integers(1, 8)))]
    kept = [report for report in sent if draw(st.booleans())]
    arrived = draw(st.permutations([*kept, *draw(st.lists(st.sampled_from(kept), max_size=3))])) if kept else []
    lost = {source: {s for of, s in sent if of == source} - {s for of, s in kept if of == source} for source, _ in kept}
    last = {source: max(s for of, s in kept if of == source) for source, _ in kept}
    return (
        [stamped(turned("ada"), source, sequence=sequence) for source, sequence in arrived],
        {source: {s for s in missing if s < last[source]} for source, missing in lost.items()},
    )


@given(lossy())
def test_gaps_are_the_withheld_reports(case: tuple[list[LedgerEvent], dict[int, set[int]]]) -> None:
    history, withheld = case
    bench = Bench(history)
    found: dict[str, set[int]] = {incarnation(source): set() for source in withheld}
    for gap in gaps.gaps_until(bench.connection, OWNER, len(history)):
        assert not found[gap.source] & set(range(gap.first, gap.last + 1))
        found[gap.source] |= set(range(gap.first, gap.last + 1))
        assert gap.pod_name == "ada"
        after = history[gap.after_seq - 1].stamp if gap.after_seq else None
        before: Stamp | None = history[gap.before_seq - 1].stamp
        assert before is not None
        assert before.sequence == gap.last + 1
        assert (after.sequence if after else 0) == gap.first - 1
    assert found == {incarnation(source): missing for source, missing in withheld.items()}
    count = gaps.missing_until(bench.connection, OWNER, len(history))
    assert count == (sum(map(len, withheld.values())), sum(1 for missing in withheld.values() if missing))


def test_greatest_sequences_are_counted() -> None:
    greatest = (1 << 63) - 1
    bench = Bench([pluralize(stamped(turned("ada"), source), greatest) for source in (1, 2)])
    [gap, _] = gaps.gaps_until(bench.connection, OWNER, 2)
    assert (gap.first, gap.last) == (1, greatest - 1)
    assert gaps.missing_until(bench.connection, OWNER, 2).senders == 2
    assert bench.sql("SELECT count(*) FROM gaps") == [(2,)]


def lost_a_report(folder: Path) -> Path:
    return written(
        folder,
        stamped(spawned("ada", scope=writes("/srv")), 1, speaker=9, sequence=1),
        stamped(turned("ada"), 1, sequence=2),
        stamped(turned("ada"), 1, sequence=5),
    )


def test_gaps_prints_the_missing_reports(tmp_path: Path) -> None:
    folder = lost_a_report(tmp_path)
    first, second = podledger_json("gaps", folder=folder)
    assert (first["first"], first["last"], first["after_seq"], first["before_seq"]) == (1, 1, None, 2)
    assert (second["first"], second["last"], second["after_seq"], second["before_seq"]) == (3, 4, 2, 3)
    assert "3 to 4" in podledger("gaps", folder=folder).out
    assert "nothing is missing" in podledger("gaps", "--at", 1, folder=folder).out


@pytest.mark.parametrize(
    "words",
    [("holders", "/srv"), ("explain", "ada"), ("diff", 0, 3), ("pods",), ("pods", "--tree"), ("replay",)],
)
def test_answers_over_gaps_mention_them(tmp_path: Path, words: tuple[object, ...]) -> None:
    folder = lost_a_report(tmp_path)
    note = "note: 3 reports of 1 sender are missing up to here (see `podledger gaps`)\n"
    assert podledger(*words, folder=folder).err == note
    if words[0] != "diff":
        assert podledger(*words, "--at", 1, folder=folder).err == ""


# holders


def test_holders_prints_the_pods_and_their_chains(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        spawned("planner", scope=writes("/srv")),
        delegated("coder", scope=writes("/srv/app"), parent="planner"),
        stopped("coder"),
    )
    coder = {"pod_name": "coder", "target": "/srv/app", "recursive": True, "chain": ["root", "planner", "coder"]}
    planner = {"pod_name": "planner", "target": "/srv", "recursive": True, "chain": ["root", "planner"]}
    none = {"reports": 0, "senders": 0}
    assert podledger_json("holders", "/srv/app/x", "--at", 2, folder=folder) == {
        "path": "/srv/app/x",
        "holders": [coder],
        "gaps": none,
    }
    assert podledger_json("holders", "/srv/app/x", folder=folder)["holders"] == [planner]
    assert [holder["pod_name"] for holder in podledger_json("holders", "/etc", folder=folder)["holders"]] == ["root"]
    assert "root > planner > coder" in podledger("holders", "/srv/app/x", "--at", 2, folder=folder).out


# The tree


def test_cyclic_parents_are_drawn_once_each(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        stamped(delegated("ada", parent="bob"), 1, speaker=2),
        stamped(delegated("bob", parent="ada"), 2, speaker=1),
        stamped(delegated("cy", parent="bob"), 3, speaker=2),
        stamped(delegated("dot", parent="dot"), 4, speaker=4),
    )
    assert sorted(names(podledger_json("pods", "--tree", folder=folder))) == ["ada", "bob", "cy", "dot"]
    assert podledger("pods", "--tree", folder=folder).out.count("ada") == 1


def names(node: dict[str, Any]) -> list[str]:
    return [name for child in node["children"] for name in (child["pod_name"], *names(child))]


def test_very_deep_tree_is_drawn_whole(tmp_path: Path) -> None:
    chain = [spawned("p0"), *(delegated(f"p{n}", parent=f"p{n - 1}") for n in range(1, 300))]
    folder = written(tmp_path, *chain)
    assert len(names(podledger_json("pods", "--tree", folder=folder))) == 300
    assert "p299" in podledger("pods", "--tree", folder=folder).out


# replay


def replayed(bench: Bench, plan: ReplayOptions) -> tuple[ReplayResult, list[ChangedOutcome]]:
    reversals: list[ChangedOutcome] = []
    done = replay.replay(bench.connection, OWNER, plan, reversals.append)
    assert done.reversals == len(reversals)
    return done, reversals


@given(strategies.histories)
def test_replay_in_logged_order_changes_nothing(history: list[LedgerEvent]) -> None:
    done, reversals = replayed(Bench(history), ReplayOptions())
    assert (done.until_seq, done.pods, reversals) == (len(history), (), [])


@given(strategies.histories)
def test_replay_without_stamps_equals_unstamped_events(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    bare = Bench([event.model_copy(update={"stamp": None}) for event in history])
    done, reversals = replayed(bench, ReplayOptions(stamps=False))
    check_against(bench, bare, done, with_incarnations=False)
    logged, otherwise = bench.outcomes(), bare.outcomes()
    expected = [
        (seq, otherwise[seq - 1]) for seq in range(1, len(history) + 1) if logged[seq - 1] != otherwise[seq - 1]
    ]
    assert [(reversal.seq, reversal.now) for reversal in reversals] == expected


def check_against(bench: Bench, other: Bench, done: ReplayResult, *, with_incarnations: bool) -> None:
    """Check that `done` names the pods that differ between two registries."""
    held = contents(bench, with_incarnations=with_incarnations)
    rebuilt = contents(other, with_incarnations=with_incarnations)
    expected = {name for name in held.keys() | rebuilt.keys() if held.get(name) != rebuilt.get(name)}
    assert {pod.pod_name for pod in done.pods} == expected
    for pod in done.pods:
        assert (pod.logged is None) == (pod.pod_name not in held)
        assert (pod.now is None) == (pod.pod_name not in rebuilt)


def contents(bench: Bench, *, with_incarnations: bool) -> dict[str, Any]:
    fields = ["socket_path", "scope_delegated", "parent_pod", *(["incarnation"] if with_incarnations else [])]
    return {pod["pod_name"]: [pod[field] for field in fields] for pod in bench.pods()}


@given(strategies.stories(), st.data())
def test_replay_in_sent_order_equals_sending_in_order(story: list[LedgerEvent], data: st.DataObject) -> None:
    sent = [timed(event, place) for place, event in enumerate(numbered(story), 1)]
    arrived = data.draw(st.permutations(sent))
    bench = Bench()
    bench.now_us = 2_000_000_000_000_000
    bench.append(*arrived)
    in_order = Bench(sent)
    done, _ = replayed(bench, ReplayOptions(order="sent"))
    check_against(bench, in_order, done, with_incarnations=True)


def numbered(story: list[LedgerEvent]) -> list[LedgerEvent]:
    """Return the events with the sequences that their senders would give them."""
    counts: Counter[str] = Counter()
    found: list[LedgerEvent] = []
    for event in story:
        assert event.stamp is not None
        counts[event.stamp.source] += 1
        found.append(pluralize(event, counts[event.stamp.source]))
    return found


def pluralize(event: LedgerEvent, sequence: int) -> LedgerEvent:
    assert event.stamp is not None
    return event.model_copy(update={"stamp": event.stamp.model_copy(update={"sequence": sequence})})


def timed(event: LedgerEvent, second: int) -> LedgerEvent:
    assert event.stamp is not None
    time = f"2026-01-31T14:{second // 60:02}:{second % 60:02}Z"
    return event.model_copy(update={"stamp": event.stamp.model_copy(update={"time": time})})


def test_sequence_outweighs_the_clock_of_a_sender() -> None:
    first, second = stamped(stopped("ada"), 1, sequence=1), stamped(turned("ada"), 1, sequence=2)
    bench = Bench()
    bench.now_us = 2_000_000_000_000_000
    bench.append(timed(stamped(spawned("ada"), 1, speaker=9), 0), timed(second, 1), timed(first, 59))
    _, reversals = replayed(bench, ReplayOptions(order="sent"))
    assert [(reversal.seq, reversal.logged, reversal.now) for reversal in reversals] == [(2, "noted", "late")]


def test_replay_prints_and_writes_nothing(tmp_path: Path) -> None:
    folder = written(tmp_path, stamped(turned("ada"), 1, sequence=2), stamped(spawned("ada"), 1, speaker=1, sequence=1))
    before = rows_of(folder / "podledger.db", *TABLES)
    found = podledger_json("replay", "--order", "sent", folder=folder)
    assert found == {
        "order": "sent",
        "without_stamps": False,
        "events": [{"seq": 1, "kind": "turn_ended", "pod_name": "ada", "logged": "unknown", "now": "noted"}],
        "until_seq": 2,
        "reversals": 1,
        "pods": [],
    }
    assert "unknown in the log, noted in the replay" in podledger("replay", "--order", "sent", folder=folder).out
    assert podledger_json("replay", "--without-stamps", "--at", 1, folder=folder)["events"] == []
    assert rows_of(folder / "podledger.db", *TABLES) == before


def test_replay_names_an_altered_entry(tmp_path: Path) -> None:
    folder = written(tmp_path, spawned("ada"))
    with connected(folder / "podledger.db") as connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("UPDATE events SET payload = 'x'")
    for words in (("replay",), ("explain", "ada")):
        done = podledger(*words, folder=folder, status=None)
        assert (done.status, done.err.count("\n")) == (1, 1)


# The library


def test_ledger_answers_like_the_commands(tmp_path: Path) -> None:
    folder = lost_a_report(tmp_path)

    async def work() -> None:
        async with Ledger.open(folder / "podledger.db") as ledger:
            assert [gap.last for gap in await ledger.gaps()] == [1, 4]
            assert await ledger.missing(at=2) == (1, 1)
            assert [step.entry.seq async for step in ledger.explain("ada", at=2)] == [1, 2]
            assert [pod.change for pod in (await ledger.diff(0)).pods] == ["appeared"]
            assert (await ledger.replay(ReplayOptions(order="sent"))).until_seq == 3

    asyncio.run(work())


def test_holders_and_missing_come_from_one_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = lost_a_report(tmp_path)
    snapshots: list[object] = []

    async def read(database: Database, work: Callable[[Connection], Any]) -> Any:
        snapshots.append(work)
        return await plain(database, work)

    plain = Database.read
    monkeypatch.setattr(Database, "read", read)

    async def work() -> None:
        async with Ledger.open(folder / "podledger.db") as ledger:
            snapshots.clear()
            found, missing = await ledger.holders_with_missing("/srv", at=2)
            assert len(snapshots) == 1
            assert found == await ledger.holders("/srv", at=2)
            assert missing == await ledger.missing(at=2) == (1, 1)

    asyncio.run(work())


def test_bundle_is_not_replayed(tmp_path: Path) -> None:
    folder = lost_a_report(tmp_path)
    podledger("bundle", "b.db", folder=folder)
    podledger("replay", "--db", "b.db", folder=folder, status=UsageError.exit_status)
    assert podledger_json("explain", "ada", "--db", "b.db", folder=folder)["events"]
    assert podledger_json("sql", "SELECT count(*) AS n FROM live_pods", "--db", "b.db", folder=folder) == [{"n": 1}]
