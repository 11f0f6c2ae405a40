"""The past: the registry, the tree and the holders at any moment, compared with a plain model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podledger.core.errors import InvalidMomentError
from podledger.core.events import LedgerEvent
from podledger.queries import moments
from podledger.store.tables import nodes_at, span_node
from tests import strategies
from tests.given import OWNER, delegated, exited, reclaimed, spawned, stamped, stopped, turned, writes
from tests.model import Model
from tests.support import Bench

FIRST = datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)
"""The second in which a Bench records its first batch; the next ones are a second apart."""


def one_by_one(*events: LedgerEvent) -> Bench:
    bench = Bench()
    for event in events:
        bench.append(event)
    return bench


def sockets(pods: list[dict[str, Any]]) -> dict[str, str]:
    return {pod["pod_name"]: pod["socket_path"] for pod in pods}


def callbacks(pods: list[dict[str, Any]]) -> dict[str, str]:
    return {pod["pod_name"]: pod["callback_address"] for pod in pods}


# Compared with the model at every seq


@given(strategies.histories)
def test_registry_at_every_seq_equals_the_model(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    for seq in range(len(history) + 1):
        then = Model.of(history[:seq])
        assert bench.pods(seq) == then.registry()
        assert bench.pods(seq, closed=True) == then.history()


@settings(max_examples=40)
@given(strategies.histories)
def test_registry_after_every_event_equals_the_model(history: list[LedgerEvent]) -> None:
    bench, model = Bench(), Model()
    for event in history:
        bench.append(event)
        model.take(event)
        assert bench.pods() == model.registry()


@given(strategies.histories, st.sampled_from(strategies.PATHS))
def test_holders_at_every_seq_equal_the_model(history: list[LedgerEvent], path: str) -> None:
    bench = Bench(history)
    for seq in range(len(history) + 1):
        found = {holder.pod_name: list(holder.chain) for holder in bench.holders(path, seq)}
        assert found == Model.of(history[:seq]).holders(path)


@given(strategies.histories)
def test_tree_at_every_seq_equals_the_model(history: list[LedgerEvent]) -> None:
    bench = Bench(history)
    for seq in range(len(history) + 1):
        assert bench.tree(seq) == Model.of(history[:seq]).tree()


@given(strategies.stories(), st.sampled_from(strategies.PATHS))
def test_stamped_tree_and_holders_equal_the_model(story: list[LedgerEvent], path: str) -> None:
    """Deep lineages: each incarnation is delegated by another, which may be ended, unknown or its own descendant."""
    bench, model = Bench(story), Model.of(story)
    assert bench.tree() == model.tree()
    assert {holder.pod_name: list(holder.chain) for holder in bench.holders(path)} == model.holders(path)
    assert bench.pods() == model.registry()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 400))
def test_span_is_found_from_every_seq_in_it(start: int, length: int, head: int) -> None:
    """The nodes above a seq include the node of every span that holds it."""
    until = start + length
    for seq in range(start, until):
        assert span_node(start, until) in nodes_at(seq, max(head, until))
    assert all(span_node(start, None) in nodes_at(seq, head) for seq in (0, start, head))


def test_long_log_needs_few_nodes() -> None:
    assert len(nodes_at(777_777, 1_000_000)) <= 21


# Times


def test_time_names_the_last_seq_recorded_by_then() -> None:
    bench = one_by_one(spawned("a"), spawned("b"), spawned("c"))
    for at, names in [
        (FIRST - timedelta(days=1), []),
        (FIRST - timedelta(microseconds=1), []),
        (FIRST, ["a"]),
        (FIRST + timedelta(milliseconds=1500), ["a", "b"]),
        (FIRST + timedelta(seconds=2), ["a", "b", "c"]),
        (FIRST + timedelta(days=9_999), ["a", "b", "c"]),
    ]:
        assert [pod["pod_name"] for pod in bench.pods(at)] == names


def test_time_includes_all_events_of_its_microsecond() -> None:
    bench = Bench([spawned("a"), spawned("b")])
    bench.append(spawned("c"), tick_s=0)
    assert len(bench.pods(FIRST)) == 3
    assert bench.pods(FIRST - timedelta(microseconds=1)) == []


def test_same_time_in_another_zone_is_the_same() -> None:
    bench = one_by_one(spawned("a"), spawned("b"))
    elsewhere = FIRST.astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    assert bench.pods(elsewhere) == bench.pods(1)


@given(strategies.histories, st.data())
def test_time_and_its_seq_give_one_registry(history: list[LedgerEvent], data: st.DataObject) -> None:
    bench = Bench()
    for event in history:
        bench.append(event, tick_s=data.draw(st.integers(-2, 2)))
    times = [row[0] for row in bench.sql("SELECT recorded_us FROM events ORDER BY seq")]
    assert times == sorted(times)
    for seq, at in enumerate(times, 1):
        last = max(other for other, then in enumerate(times, 1) if then == at)
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at)
        assert moments.resolve(bench.connection, OWNER, moment) == last >= seq


def test_naive_time_is_refused() -> None:
    with pytest.raises(InvalidMomentError, match="zone") as caught:
        Bench([spawned("a")]).pods(datetime(2026, 1, 31))  # noqa: DTZ001 - what is refused
    assert caught.value.hint
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("seq", [2, -1, 10**12, 1 << 63, -(1 << 70)])
def test_seq_outside_the_log_is_refused(seq: int) -> None:
    with pytest.raises(InvalidMomentError):
        Bench([spawned("a")]).pods(seq)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("17", 17),
        ("0", 0),
        ("2026-01-31T14:03:00Z", datetime(2026, 1, 31, 14, 3, tzinfo=UTC)),
        ("2026-01-31T14:03:00", datetime(2026, 1, 31, 14, 3, tzinfo=UTC)),
        ("2026-01-31 14:03:00+02:00", datetime(2026, 1, 31, 12, 3, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_moment_is_read_as_seq_or_time(text: str, moment: int | datetime) -> None:
    assert moments.parse_moment(text) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "1.5", "²", "9" * 19 + "-01-01", "2026-13-01", "14:03"])
def test_text_that_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InvalidMomentError) as caught:
        moments.parse_moment(text)
    assert caught.value.hint


# Callback addresses


def test_spawned_pod_calls_back_to_the_stated_address() -> None:
    assert callbacks(Bench([spawned("p", callback="/run/me")]).pods()) == {"p": "/run/me"}
    assert callbacks(Bench([spawned("p")]).pods()) == {"p": ""}


def test_unstamped_child_calls_back_to_the_open_parent() -> None:
    bench = Bench([spawned("mid", "/run/1"), delegated("p"), stopped("mid"), spawned("mid", "/run/2")])
    assert [callbacks(bench.pods(seq)).get("p") for seq in range(5)] == [None, None, *["/run/1"] * 3]


def test_unstamped_child_calls_back_to_the_next_parent() -> None:
    bench = Bench([delegated("p"), spawned("mid", "/run/1"), stopped("mid"), spawned("mid", "/run/2")])
    assert [callbacks(bench.pods(seq)).get("p") for seq in range(5)] == [None, "", *["/run/1"] * 3]


def test_closed_parent_gives_no_callback_address() -> None:
    gone = [spawned("mid", "/run/1"), stopped("mid"), delegated("p")]
    assert callbacks(Bench(gone).pods()) == {"p": ""}
    assert callbacks(Bench([*gone, spawned("mid", "/run/2")]).pods())["p"] == "/run/2"


@pytest.mark.parametrize("first", [True, False], ids=["parent first", "child first"])
def test_stamped_child_calls_back_to_its_source(first: bool) -> None:
    """Wherever in the log that incarnation was delegated, and whichever incarnation has the parent's name by now."""
    parent = [stamped(spawned("mid", "/run/5"), 5, 1), stamped(spawned("mid", "/run/6"), 6, 1)]
    child = [stamped(delegated("p"), 7, 5)]
    assert callbacks(Bench([*parent, *child] if first else [*child, *parent]).pods())["p"] == "/run/5"


def test_child_of_unknown_source_has_no_callback_address() -> None:
    bench = Bench([spawned("mid", "/run/1"), stamped(delegated("p"), 7, 5)])
    assert callbacks(bench.pods())["p"] == ""


def test_past_callback_address_ignores_later_entries() -> None:
    bench = Bench([stamped(delegated("p"), 7, 5), stamped(spawned("mid", "/run/5"), 5, 1)])
    assert [callbacks(bench.pods(seq)).get("p") for seq in range(3)] == [None, "", "/run/5"]


# What was known at the time


def test_report_does_not_name_an_unnamed_tenure() -> None:
    bench = Bench([spawned("p"), turned("p"), stamped(turned("p"), 4)])
    assert [pod["incarnation"] for seq in (1, 2, 3) for pod in bench.pods(seq)] == [None, None, None]


def test_end_is_inferred_until_it_is_confirmed() -> None:
    bench = Bench([spawned("p"), reclaimed("p"), stopped("p")])
    ends = [(pod["closed_by"], pod["evidence"]) for seq in (1, 2, 3) for pod in bench.pods(seq, closed=True)]
    assert ends == [(None, "observed"), ("pod_reclaimed", "inferred"), ("pod_reclaimed", "reported")]


def test_one_name_has_many_incarnations() -> None:
    bench = Bench([spawned("p", "/run/1"), exited("p"), spawned("p", "/run/2")])
    assert [sockets(bench.pods(seq)) for seq in range(4)] == [{}, {"p": "/run/1"}, {}, {"p": "/run/2"}]
    assert [(pod["from_seq"], pod["until_seq"]) for pod in bench.pods(closed=True)] == [(1, 2), (3, None)]


def test_pods_are_sorted_by_name() -> None:
    bench = Bench([spawned(name) for name in ("b", "ä", "a", "B")])
    assert [pod["pod_name"] for pod in bench.pods()] == ["B", "a", "b", "ä"]


# Lineage


def test_orphan_moves_to_nearest_open_ancestor() -> None:
    chain = [spawned("a"), delegated("b", parent="a"), delegated("c", parent="b"), delegated("d", parent="c")]
    bench = Bench([*chain, stopped("c"), stopped("b"), stopped("a")])
    assert [bench.tree(seq).get("d") for seq in (4, 5, 6, 7)] == ["c", "b", "a", OWNER]


def test_stamped_child_belongs_to_its_source_incarnation() -> None:
    restarted = [stamped(spawned("mid", "/run/5"), 5, 1), stamped(spawned("mid", "/run/6"), 6, 1)]
    bench = Bench([*restarted, stamped(delegated("p"), 7, 5), stamped(delegated("q"), 8, 6)])
    assert bench.tree() == {"mid": OWNER, "p": OWNER, "q": "mid"}


def test_revived_parent_gets_its_stamped_children_back() -> None:
    bench = Bench([stamped(spawned("mid"), 5, 1), stamped(delegated("p"), 7, 5), reclaimed("mid"), turned("mid")])
    assert [bench.tree(seq)["p"] for seq in (2, 3, 4)] == ["mid", OWNER, "mid"]


def test_cyclic_lineage_ends() -> None:
    bench = Bench([stamped(delegated("a"), 5, 6), stamped(delegated("b"), 6, 5)])
    assert bench.tree() == {"a": "b", "b": "a"}


@pytest.mark.parametrize("speaker", [lambda n: n, lambda n: n ^ 1, lambda n: n - 1], ids=["self", "pairs", "chain"])
def test_lines_of_ancestors_share_their_cost(speaker: Callable[[int], int]) -> None:
    """A circle, and a line that many pods are on, cost no more than the pods in it."""

    def steps(count: int) -> int:
        bench = Bench([stamped(delegated(f"p{n}"), n, speaker=speaker(n)) for n in range(2, count + 2)])
        return bench.steps(bench.tree)

    assert steps(200) < 3 * steps(100)
    assert steps(200) < 2_000


def test_pod_that_names_itself_as_parent_belongs_to_the_owner() -> None:
    assert Bench([stamped(delegated("a"), 5, 5)]).tree() == {"a": OWNER}
    assert Bench([delegated("a", parent="a")]).tree() == {"a": OWNER}


# Holders


def test_pod_that_lent_a_path_on_does_not_hold_it() -> None:
    bench = Bench([spawned("a", scope=writes("/srv")), delegated("b", scope=writes("/srv/app"), parent="a")])
    assert [holder.pod_name for holder in bench.holders("/srv/app/x", 1)] == ["a"]
    assert [holder.as_json() for holder in bench.holders("/srv/app/x")] == [
        {"pod_name": "b", "target": "/srv/app", "recursive": True, "chain": [OWNER, "a", "b"]}
    ]
    assert [holder.pod_name for holder in bench.holders("/srv/other")] == ["a"]


def test_lent_path_returns_when_the_child_ends() -> None:
    events = [spawned("a", scope=writes("/srv")), delegated("b", scope=writes("/srv"), parent="a"), stopped("b")]
    assert [[holder.pod_name for holder in Bench(events).holders("/srv/x", seq)] for seq in range(4)] == [
        *([OWNER], ["a"], ["b"], ["a"])
    ]


def test_grandchild_holds_instead_of_both_ancestors() -> None:
    events = [
        spawned("a", scope=writes("/")),
        delegated("b", parent="a"),
        delegated("c", scope=writes("/x"), parent="b"),
    ]
    assert [holder.pod_name for holder in Bench(events).holders("/x/y")] == ["c"]


def test_grandchild_of_ended_child_still_holds() -> None:
    events = [
        spawned("a", scope=writes("/")),
        delegated("b", scope=writes("/"), parent="a"),
        delegated("c", scope=writes("/x"), parent="b"),
        stopped("b"),
    ]
    assert [holder.pod_name for holder in Bench(events).holders("/x/y")] == ["c"]


def test_unrelated_pods_hold_one_path() -> None:
    bench = Bench([spawned("b", scope=writes("/srv")), spawned("a", scope=writes("/srv/app"))])
    assert [holder.pod_name for holder in bench.holders("/srv/app/x")] == ["a", "b"]


def test_owner_holds_unlent_paths() -> None:
    (holder,) = Bench([spawned("a", scope=writes("/srv"))]).holders("/etc/passwd")
    assert holder.as_json() == {"pod_name": OWNER, "target": None, "recursive": None, "chain": [OWNER]}


@pytest.mark.parametrize(
    ("path", "held"), [("/srv", True), ("/srv/x", True), ("/srv/x/y", False), ("/srvx", False), ("/", False)]
)
def test_non_recursive_rule_covers_direct_children(path: str, held: bool) -> None:
    bench = Bench([spawned("a", scope=writes("/srv", recursive=False))])
    assert (bench.holders(path)[0].pod_name == "a") is held


@pytest.mark.parametrize("path", ["/srv/app/../app/./a", "//srv///app/a", "/srv/app/a/", "/x/../../srv/app/a"])
def test_paths_are_compared_after_normalisation(path: str) -> None:
    bench = Bench([spawned("a", scope=writes("/srv/./app/"))])
    assert bench.holders(path)[0].pod_name == "a"


def test_read_grant_makes_no_holder() -> None:
    rule = writes("/srv")[0].model_copy(update={"permission": "read"})
    assert Bench([spawned("a", scope=(rule,))]).holders("/srv/x")[0].pod_name == OWNER
