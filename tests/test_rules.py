"""The rules, cell by cell as `docs/rules.md` states them, and compared with the model."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given

from podledger.core import rules
from podledger.core.entries import draft
from podledger.core.events import Errored, LedgerEvent
from podledger.core.rules import UNHEARD, Decision, Fact, PodStatus, State, fold, may_change
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

A, OTHER = "/run/a", "/run/other"


def fact(seq: int, event: LedgerEvent) -> Fact:
    kind, evidence, name, _, _, stamp, content = draft(event, OWNER)
    subject, source = (stamp.subject, stamp.source) if stamp else (None, None)
    return Fact(seq, kind, evidence, name, subject, source, content)


def after(*events: LedgerEvent) -> Decision:
    """Return what the last of a pod's events did."""
    decision = Decision("ignored", UNHEARD)
    for seq, event in enumerate(events, 1):
        decision = fold(decision.state, fact(seq, event))
    return decision


GIVEN: dict[str, tuple[LedgerEvent, ...]] = {
    "unheard": (),
    "heard": (stamped(turned("p"), 1),),
    "open": (delegated("p", A),),
    "inferred": (delegated("p", A), reclaimed("p")),
    "ended": (delegated("p", A), stopped("p")),
}
GIVEN_STAMPED: dict[str, tuple[LedgerEvent, ...]] = {
    "unheard": (),
    "heard": (stamped(turned("p"), 1),),
    "open": (stamped(delegated("p", A), 1),),
    "inferred": (stamped(delegated("p", A), 1), reclaimed("p")),
    "ended": (stamped(delegated("p", A), 1), stamped(stopped("p"), 1)),
}

# The tables of docs/rules.md. `cells` fills in the status after an event that leaves it unchanged.
COLUMNS = ("unheard", "heard", "open", "inferred", "ended")
Row = tuple[LedgerEvent, str, str, str, str, str]
UNSTAMPED: list[Row] = [
    (delegated("p", A), "applied>open", "applied>open", "duplicate", "applied>open", "applied>open"),
    (delegated("p", OTHER), "applied>open", "applied>open", "conflict", "applied>open", "applied>open"),
    (spawned("p", OTHER), "applied>open", "applied>open", "conflict", "applied>open", "applied>open"),
    (stopped("p"), "unknown", "unknown", "applied>ended", "confirmed>ended", "duplicate"),
    (exited("p"), "unknown", "unknown", "applied>ended", "confirmed>ended", "duplicate"),
    (turned("p"), "unknown", "unknown", "noted", "revived>open", "late"),
    (Errored(pod_name="p", message="no"), "unknown", "unknown", "noted", "revived>open", "late"),
    (unreachable("p"), "ignored", "ignored", "noted", "ignored", "ignored"),
    (reclaimed("p"), "ignored", "ignored", "applied>inferred", "ignored", "ignored"),
]
STAMPED: list[Row] = [
    (delegated("p", A), "applied>open", "applied>open", "duplicate", "late", "late"),
    (delegated("p", OTHER), "applied>open", "applied>open", "conflict", "late", "late"),
    (spawned("p", OTHER), "applied>open", "applied>open", "conflict", "late", "late"),
    (stopped("p"), "unknown>ended", "unknown>ended", "applied>ended", "confirmed>ended", "duplicate"),
    (exited("p"), "unknown>ended", "unknown>ended", "applied>ended", "confirmed>ended", "duplicate"),
    (turned("p"), "unknown>heard", "unknown", "noted", "revived>open", "late"),
    (Errored(pod_name="p", message="no"), "unknown>heard", "unknown", "noted", "revived>open", "late"),
    (unreachable("p"), "ignored>heard", "ignored", "noted", "ignored", "ignored"),
    (reclaimed("p"), "ignored>heard", "ignored", "applied>inferred", "ignored", "ignored"),
]

Case = tuple[str, LedgerEvent, str, str]


def cells(table: list[Row]) -> list[Case]:
    found = []
    for event, *row in table:
        for status, cell in zip(COLUMNS, row, strict=True):
            outcome, _, becomes = cell.partition(">")
            found.append((status, event, outcome, becomes or status))
    return found


@pytest.mark.parametrize(("status", "event", "outcome", "becomes"), cells(UNSTAMPED))
@pytest.mark.parametrize("known", [GIVEN, GIVEN_STAMPED], ids=["unnamed", "named"])
def test_step_two_for_unstamped_events(
    known: dict[str, tuple[LedgerEvent, ...]], status: str, event: LedgerEvent, outcome: str, becomes: str
) -> None:
    assert after(*known[status]).state.status == status
    decision = after(*known[status], event)
    assert (decision.outcome, decision.state.status) == (outcome, becomes)


@pytest.mark.parametrize(("status", "event", "outcome", "becomes"), cells(STAMPED))
def test_step_two_for_stamped_events(status: str, event: LedgerEvent, outcome: str, becomes: str) -> None:
    decision = after(*GIVEN_STAMPED[status], stamped(event, 1))
    assert (decision.outcome, decision.state.status) == (outcome, becomes)


def test_owner_is_the_parent_of_a_spawned_pod() -> None:
    reported_with_owner_as_parent = delegated("p", A, parent=OWNER)
    assert after(spawned("p", A), reported_with_owner_as_parent).outcome == "duplicate"
    assert after(spawned("p", A), delegated("p", A, parent="mid")).outcome == "conflict"


@pytest.mark.parametrize(
    "other", [delegated("p", OTHER), delegated("p", A, writes("/srv")), delegated("p", A, parent="another")]
)
def test_different_delegation_is_a_conflict(other: LedgerEvent) -> None:
    """A conflict leaves the tenure unchanged."""
    decision = after(delegated("p", A), other)
    assert (decision.outcome, decision.changed) == ("conflict", ())
    assert decision.state == after(delegated("p", A)).state


def test_end_closes_the_tenure_and_records_its_kind() -> None:
    (tenure,) = after(delegated("p", A), turned("p"), exited("p")).changed
    assert (tenure.from_seq, tenure.until_seq, tenure.closed_by, tenure.closed_evidence) == (
        *(1, 3, "pod_exited"),
        "observed",
    )


def test_revived_opens_a_tenure_of_the_same_incarnation() -> None:
    decision = after(stamped(delegated("p", A, writes("/srv")), 3, 2), reclaimed("p"), turned("p"))
    (tenure,) = decision.changed
    assert (tenure.from_seq, tenure.until_seq, tenure.incarnation, tenure.source) == (
        3,
        None,
        incarnation(3),
        incarnation(2),
    )
    assert (tenure.socket_path, tenure.parent_pod, tenure.opened_evidence) == (A, "mid", "reported")


def test_confirmed_keeps_the_end_and_adds_evidence() -> None:
    (tenure,) = after(delegated("p", A), reclaimed("p"), unreachable("p"), stopped("p")).changed
    assert (tenure.until_seq, tenure.closed_by, tenure.closed_evidence) == (2, "pod_reclaimed", "inferred")
    assert (tenure.confirmed_seq, tenure.confirmed_evidence) == (4, "reported")


@pytest.mark.parametrize("event", [turned("p"), stopped("p"), delegated("p", A), reclaimed("p"), unreachable("p")])
def test_older_subject_is_late_and_changes_nothing(event: LedgerEvent) -> None:
    known = [stamped(delegated("p", A), 5)]
    decision = after(*known, stamped(event, 4))
    assert (decision.outcome, decision.state, decision.changed) == ("late", after(*known).state, ())


@pytest.mark.parametrize("event", [turned("p"), stopped("p"), delegated("p", OTHER)])
def test_equal_subject_is_late_after_an_unstamped_delegation(event: LedgerEvent) -> None:
    known = [stamped(delegated("p", A), 5), stamped(stopped("p"), 5), delegated("p", OTHER)]
    decision = after(*known, stamped(event, 5))
    assert (decision.outcome, decision.state, decision.changed) == ("late", after(*known).state, ())


def test_equal_subject_stays_late_after_that_tenure_ended() -> None:
    known = [stamped(delegated("p", A), 5), stamped(stopped("p"), 5), delegated("p", OTHER), stopped("p")]
    assert after(*known, stamped(stopped("p"), 5)).outcome == "late"


def test_equal_subject_applies_after_an_unstamped_duplicate() -> None:
    assert after(stamped(delegated("p", A), 5), delegated("p", A), stamped(stopped("p"), 5)).outcome == "applied"


@pytest.mark.parametrize("event", [turned("p"), stopped("p"), exited("p"), unreachable("p"), reclaimed("p")])
@pytest.mark.parametrize("status", ["open", "inferred"])
def test_report_names_an_unnamed_tenure(status: str, event: LedgerEvent) -> None:
    """Step two decides as for the unstamped event."""
    decision = after(*GIVEN[status], stamped(event, 7))
    unnamed = after(*GIVEN[status], event)
    assert (decision.outcome, decision.state.status) == (unnamed.outcome, unnamed.state.status)
    assert decision.state.newest == incarnation(7)
    assert decision.state.tenure is not None
    assert decision.state.tenure.incarnation == incarnation(7)


def test_report_does_not_name_an_ended_tenure() -> None:
    decision = after(*GIVEN["ended"], stamped(turned("p"), 7))
    assert (decision.outcome, decision.state.status, decision.changed) == ("unknown", "heard", ())


def test_same_delegation_names_an_open_tenure() -> None:
    decision = after(delegated("p", A), stamped(delegated("p", A), 7))
    (tenure,) = decision.changed
    assert (decision.outcome, tenure.from_seq, tenure.until_seq, tenure.incarnation) == (
        "duplicate",
        1,
        None,
        incarnation(7),
    )


def test_other_delegation_supersedes_an_unnamed_tenure() -> None:
    decision = after(delegated("p", A), stamped(delegated("p", OTHER), 7))
    old, new = decision.changed
    assert (decision.outcome, old.until_seq, old.closed_by, old.incarnation) == ("applied", 2, "superseded", None)
    assert (new.from_seq, new.until_seq, new.incarnation, new.socket_path) == (2, None, incarnation(7), OTHER)


def test_delegation_does_not_name_an_inferred_tenure() -> None:
    decision = after(delegated("p", A), reclaimed("p"), stamped(delegated("p", A), 7))
    (new,) = decision.changed
    assert (decision.outcome, new.from_seq, new.incarnation) == ("applied", 3, incarnation(7))


@pytest.mark.parametrize(
    ("event", "outcome", "status"),
    [
        (turned("p"), "unknown", "heard"),
        (stopped("p"), "unknown", "ended"),
        (delegated("p", A), "applied", "open"),
        (reclaimed("p"), "ignored", "heard"),
        (unreachable("p"), "ignored", "heard"),
    ],
)
def test_newer_subject_supersedes_an_older_incarnation(event: LedgerEvent, outcome: str, status: str) -> None:
    decision = after(stamped(delegated("p", A), 5), stamped(event, 6))
    assert (decision.outcome, decision.state.status, decision.state.newest) == (outcome, status, incarnation(6))
    assert (decision.changed[0].until_seq, decision.changed[0].closed_by) == (2, "superseded")


def test_stamp_without_a_subject_counts_as_unstamped() -> None:
    known = [stamped(delegated("p", A), 5), stamped(stopped("p"), 5)]
    assert after(*known, stamped(delegated("p", A), None, 9)).outcome == "applied"


@given(strategies.histories)
def test_outcomes_agree_with_the_model(history: list[LedgerEvent]) -> None:
    states: dict[str, State] = {}
    model = Model()
    for seq, event in enumerate(history, 1):
        decision = fold(states.get(event.about, UNHEARD), fact(seq, event))
        states[event.about] = decision.state
        assert decision.outcome == model.take(event)
        assert decision.state.status == model.names[event.about].status
        assert decision.state.newest == model.names[event.about].newest


@pytest.mark.parametrize("known", [GIVEN, GIVEN_STAMPED], ids=["unnamed", "named"])
@pytest.mark.parametrize("status", GIVEN)
@pytest.mark.parametrize("make", [delegated, spawned, turned, stopped, exited, unreachable, reclaimed])
def test_may_change_agrees_with_fold(
    known: dict[str, tuple[LedgerEvent, ...]], status: PodStatus, make: Callable[[str], LedgerEvent]
) -> None:
    state, event = after(*known[status]).state, make("p")
    decision = fold(state, fact(9, event))
    assert (decision.state != state, bool(decision.changed)) == (may_change(status, fact(9, event).kind),) * 2


@given(strategies.histories)
def test_fold_is_pure(history: list[LedgerEvent]) -> None:
    """The same state and event give the same decision, and no state changes later."""
    state, seen = UNHEARD, []
    for seq, event in enumerate(history, 1):
        if event.about != "ada":
            continue
        decision = fold(state, fact(seq, event))
        seen.append((state, hash(state), seq, event, decision))
        state = decision.state
    assert all(hash(before) == known for before, known, *_ in seen)
    assert all(fold(before, fact(seq, event)) == decision for before, _, seq, event, decision in seen)


def test_rules_import_no_clock_random_numbers_or_files() -> None:
    tree = ast.parse(Path(rules.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {f"podledger.core.{name}" for name in ("delegations", "entries", "errors", "events")}
    assert imported == {"__future__", "typing"} | own
