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
from podledger.core.relays import Relay, RelayedKind
from podledger.core.rules import UNHEARD, Decision, Fact, PodStatus, State, fold, kind_judged, may_change
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
from tests.model import Model, triple_of

A, OTHER = "/run/a", "/run/other"


def fact(seq: int, event: LedgerEvent, *, repeated: bool = False) -> Fact:
    """Return the part of an event that the rules read."""
    found = draft(event, OWNER)
    subject = found.stamp.subject if found.stamp else None
    judged = kind_judged(found.kind, found.relayed_kind)
    return Fact(seq, judged, found.evidence, found.pod_name, subject, found.delegation, repeated)


def after(*events: LedgerEvent) -> Decision:
    """Return the outcome of a pod's last event."""
    decision = Decision("ignored", UNHEARD)
    for seq, event in enumerate(events, 1):
        decision = fold(decision.state, fact(seq, event))
    return decision


GIVEN: dict[str, tuple[LedgerEvent, ...]] = {
    "unheard": (),
    "open": (delegated("p", A),),
    "inferred": (delegated("p", A), reclaimed("p")),
    "ended": (delegated("p", A), stopped("p")),
}
GIVEN_STAMPED: dict[str, tuple[LedgerEvent, ...]] = {
    "unheard": (),
    "open": (stamped(delegated("p", A), 1),),
    "inferred": (stamped(delegated("p", A), 1), reclaimed("p")),
    "ended": (stamped(delegated("p", A), 1), stamped(stopped("p"), 1)),
}

# The tables of docs/rules.md. `cells` fills in the status after an event that leaves it unchanged.
COLUMNS = ("unheard", "open", "inferred", "ended")
Row = tuple[LedgerEvent, str, str, str, str]
UNSTAMPED: list[Row] = [
    (delegated("p", A), "applied>open", "duplicate", "applied>open", "applied>open"),
    (delegated("p", OTHER), "applied>open", "conflict", "applied>open", "applied>open"),
    (spawned("p", OTHER), "applied>open", "conflict", "applied>open", "applied>open"),
    (stopped("p"), "unknown", "applied>ended", "confirmed>ended", "duplicate"),
    (exited("p"), "unknown", "applied>ended", "confirmed>ended", "duplicate"),
    (turned("p"), "unknown", "noted", "revived>open", "late"),
    (Errored(pod_name="p", message="no"), "unknown", "noted", "revived>open", "late"),
    (unreachable("p"), "ignored", "noted", "ignored", "ignored"),
    (reclaimed("p"), "ignored", "applied>inferred", "ignored", "ignored"),
]
STAMPED: list[Row] = [
    (delegated("p", A), "applied>open", "duplicate", "late", "late"),
    (delegated("p", OTHER), "applied>open", "conflict", "late", "late"),
    (spawned("p", OTHER), "applied>open", "conflict", "late", "late"),
    (stopped("p"), "unknown", "applied>ended", "confirmed>ended", "duplicate"),
    (exited("p"), "unknown", "applied>ended", "confirmed>ended", "duplicate"),
    (turned("p"), "unknown", "noted", "revived>open", "late"),
    (Errored(pod_name="p", message="no"), "unknown", "noted", "revived>open", "late"),
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
    assert (tenure.from_seq, tenure.until_seq) == (3, None)
    assert (tenure.incarnation, tenure.speaker) == (incarnation(3), incarnation(2))
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


@pytest.mark.parametrize("event", [turned("p"), stopped("p"), exited("p")])
@pytest.mark.parametrize("status", ["open", "inferred"])
def test_report_applies_to_an_unnamed_tenure_and_names_nothing(status: str, event: LedgerEvent) -> None:
    decision = after(*GIVEN[status], stamped(event, 7))
    unstamped = after(*GIVEN[status], event)
    assert (decision.outcome, decision.state) == (unstamped.outcome, unstamped.state)


@pytest.mark.parametrize("known", [GIVEN_STAMPED["open"], GIVEN_STAMPED["inferred"], GIVEN_STAMPED["ended"], ()])
@pytest.mark.parametrize("event", [turned("p"), Errored(pod_name="p", message="no"), stopped("p")])
def test_forged_report_leaves_the_tenure_alone(known: tuple[LedgerEvent, ...], event: LedgerEvent) -> None:
    decision = after(*known, stamped(event, 7))
    before = after(*known).state if known else UNHEARD
    assert (decision.outcome, decision.changed) == ("unknown", ())
    assert decision.state._replace(early_ends=()) == before


def test_end_before_the_delegation_is_remembered() -> None:
    decision = after(stamped(stopped("p"), 7), stamped(delegated("p", A), 7))
    assert (decision.outcome, decision.changed) == ("late", ())
    assert (decision.state.status, decision.state.newest, decision.state.early_ends) == ("ended", incarnation(7), ())


def test_remembered_end_of_a_newer_incarnation_closes_the_open_tenure() -> None:
    decision = after(stamped(delegated("p", A), 5), stamped(stopped("p"), 7), stamped(delegated("p", OTHER), 7))
    (closed,) = decision.changed
    assert (decision.outcome, closed.until_seq, closed.closed_by) == ("late", 3, "superseded")


def test_only_the_newest_early_ends_are_remembered() -> None:
    decision = after(*[stamped(stopped("p"), number) for number in range(1, 30)])
    assert decision.state.early_ends == tuple(incarnation(number) for number in range(14, 30))


def test_same_delegation_of_a_newer_incarnation_onto_an_unnamed_tenure_is_a_duplicate() -> None:
    decision = after(delegated("p", A), stamped(delegated("p", A), 7))
    assert (decision.outcome, decision.changed, decision.state.newest) == ("duplicate", (), None)


@pytest.mark.parametrize("known", [delegated("p", A), stamped(delegated("p", A), 5)])
def test_newer_delegation_supersedes_a_reported_tenure(known: LedgerEvent) -> None:
    decision = after(known, stamped(delegated("p", OTHER), 7))
    old, new = decision.changed
    assert (decision.outcome, old.until_seq, old.closed_by) == ("applied", 2, "superseded")
    assert (new.from_seq, new.until_seq, new.incarnation, new.socket_path) == (2, None, incarnation(7), OTHER)


@pytest.mark.parametrize("known", [spawned("p", A), stamped(spawned("p", A), 5)])
def test_newer_delegation_conflicts_with_an_observed_tenure(known: LedgerEvent) -> None:
    assert after(known, stamped(delegated("p", OTHER), 7)).outcome == "conflict"


@pytest.mark.parametrize("subject", [4, 6])
def test_spawn_replaces_any_other_incarnation(subject: int) -> None:
    """The owner saw the spawn itself, also if its clock was set back."""
    decision = after(stamped(spawned("p", A), 5), stamped(spawned("p", OTHER), subject))
    old, new = decision.changed
    assert (decision.outcome, old.closed_by, new.incarnation) == ("applied", "superseded", incarnation(subject))
    assert (
        after(
            stamped(spawned("p", A), 5), stamped(spawned("p", OTHER), subject), stamped(stopped("p"), subject)
        ).outcome
        == "applied"
    )


def test_spawn_of_the_same_incarnation_goes_by_status() -> None:
    assert after(stamped(spawned("p", A), 5), stamped(spawned("p", A), 5)).outcome == "duplicate"
    assert after(stamped(spawned("p", A), 5), stamped(spawned("p", OTHER), 5)).outcome == "conflict"


@pytest.mark.parametrize(
    "event", [turned("p"), stopped("p"), delegated("p", OTHER), spawned("p", OTHER), reclaimed("p")]
)
def test_repetition_is_a_duplicate_of_any_kind(event: LedgerEvent) -> None:
    state = after(delegated("p", A)).state
    assert fold(state, fact(9, event, repeated=True)) == Decision("duplicate", state)


@pytest.mark.parametrize(
    ("kind", "status"), [("shut_down", "ended"), ("pod_exited", "ended"), ("pod_reclaimed", "inferred")]
)
def test_relayed_end_counts_as_the_kind_that_was_relayed(kind: RelayedKind, status: str) -> None:
    relay = Relay(kind=kind, evidence="observed", ledger="mid", seq=3, digest="0" * 64)
    end = stamped(stopped("p"), 1).model_copy(update={"relay": relay})
    decision = after(*GIVEN_STAMPED["open"], end)
    assert (decision.outcome, decision.state.status, decision.changed[0].closed_by) == ("applied", status, kind)


def test_stamp_without_a_subject_counts_as_unstamped() -> None:
    known = [stamped(delegated("p", A), 5), stamped(stopped("p"), 5)]
    assert after(*known, stamped(delegated("p", A), None, 9)).outcome == "applied"


@given(strategies.histories)
def test_outcomes_agree_with_the_model(history: list[LedgerEvent]) -> None:
    states: dict[str, State] = {}
    model = Model()
    seen = set()
    for seq, event in enumerate(history, 1):
        triple = triple_of(event)
        repeated = triple is not None and triple in seen
        seen.add(triple)
        decision = fold(states.get(event.about, UNHEARD), fact(seq, event, repeated=repeated))
        states[event.about] = decision.state
        assert decision.outcome == model.take(event)
        if event.about not in model.names:
            continue
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
    assert (decision.state != state, bool(decision.changed)) == (may_change(state, fact(9, event).kind, None),) * 2


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
    own = {f"podledger.core.{name}" for name in ("delegations", "entries", "errors", "events", "relays")}
    assert imported == {"__future__", "typing"} | own
