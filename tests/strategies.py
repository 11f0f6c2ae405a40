"""Histories for hypothesis: few names, incarnations and sockets, so that events affect each other often."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from podledger.core.events import (
    Errored,
    LedgerEvent,
    PodExited,
    PodReclaimed,
    PodSpawned,
    PodUnreachable,
    ScopeSubDelegated,
    ShutDown,
    TurnEnded,
)
from podledger.core.fields import ScopeRule, Stamp
from tests.given import incarnation, stamped

NAMES = ("ada", "bob", "cy")
INCARNATIONS = 6
PATHS = ("/srv", "/srv/app", "/srv/app/a.txt", "/srv/app/deep/b.txt", "/srv/application", "/", "/srv/./app/", "x")
"""Targets of scopes and paths to query: nested, a mere prefix, the root, not normalised, relative."""

names = st.sampled_from(NAMES)
sockets = st.sampled_from(("/run/1", "/run/2", ""))
messages = st.text(max_size=8)
numbers = st.integers(1, INCARNATIONS)
rules: SearchStrategy[ScopeRule] = st.builds(
    ScopeRule, target=st.sampled_from(PATHS), permission=st.sampled_from(("read", "write")), recursive=st.booleans()
)
scopes = st.lists(rules, max_size=2).map(tuple)

stamps: SearchStrategy[Stamp] = st.builds(
    Stamp,
    id=st.one_of(st.uuids(version=4).map(str), st.just("00000000-0000-4000-8000-000000000001")),
    source=numbers.map(incarnation),
    sequence=st.integers(1, 9),
    time=st.just("2026-01-31T14:03:00Z"),
    subject=st.one_of(numbers.map(incarnation), numbers.map(incarnation), st.none()),
    speaker=st.one_of(numbers.map(incarnation), st.none()),
)
maybe_stamps = st.one_of(st.none(), stamps)


def wire(stamp: SearchStrategy[Stamp | None]) -> SearchStrategy[LedgerEvent]:
    """Generate an event that a pod reports."""
    return st.one_of(
        st.builds(TurnEnded, pod_name=names, stamp=stamp),
        st.builds(Errored, pod_name=names, message=messages, stamp=stamp),
        st.builds(ShutDown, pod_name=names, stamp=stamp),
        delegations(stamp),
    )


def delegations(stamp: SearchStrategy[Stamp | None]) -> SearchStrategy[ScopeSubDelegated]:
    """Generate a delegation; the parent may be unknown, or the pod itself."""
    parents = st.sampled_from((*NAMES, "nobody"))
    return st.builds(
        ScopeSubDelegated, parent_pod=parents, sub_pod=names, sub_socket=sockets, scope=scopes, stamp=stamp
    )


def local(stamp: SearchStrategy[Stamp | None]) -> SearchStrategy[LedgerEvent]:
    """Generate a fact that the owner records."""
    return st.one_of(
        st.builds(PodSpawned, pod_name=names, socket_path=sockets, scope=scopes, callback_address=sockets, stamp=stamp),
        st.builds(PodExited, pod_name=names, exit_code=st.integers(0, 255), stamp=stamp),
        st.builds(PodExited, pod_name=names, exit_code=st.none(), signal=st.integers(1, 64), stamp=stamp),
        st.builds(PodUnreachable, pod_name=names, reason=messages, attempt=st.integers(1, 9), stamp=stamp),
        st.builds(PodReclaimed, pod_name=names, reason=messages, stamp=stamp),
    )


any_event = st.one_of(wire(maybe_stamps), wire(maybe_stamps), local(maybe_stamps))
histories = st.lists(any_event, max_size=30)
"""Any history: stamped, unstamped or partly stamped, and free to contradict itself."""

unstamped_reports = st.lists(wire(st.none()), max_size=30)
"""Wire events as senders of the original runtime send them."""


@st.composite
def incarnations(draw: st.DrawFn, number: int) -> list[LedgerEvent]:
    """Generate what travels on the wire about one incarnation: its delegation, and its reports."""
    name = draw(names)
    by = draw(st.integers(1, INCARNATIONS))
    delegation = ScopeSubDelegated(
        parent_pod=draw(names), sub_pod=name, sub_socket=f"/run/{name}-{number}", scope=draw(scopes)
    )
    report: SearchStrategy[LedgerEvent] = st.sampled_from(
        (TurnEnded(pod_name=name), Errored(pod_name=name, message="no"), ShutDown(pod_name=name))
    )
    reports = draw(st.lists(report, max_size=4))
    stamped_reports = [stamped(event, number, sequence=at) for at, event in enumerate(reports, 1)]
    return [stamped(delegation, number, speaker=by, sequence=100 + number), *stamped_reports]


@st.composite
def stories(draw: st.DrawFn) -> list[LedgerEvent]:
    """Generate a stamped history in its true order: incarnations of a few names, each delegated once."""
    count = draw(st.integers(1, INCARNATIONS))
    return [event for number in range(1, count + 1) for event in draw(incarnations(number))]


@st.composite
def deliveries(
    draw: st.DrawFn, story: SearchStrategy[list[LedgerEvent]]
) -> tuple[list[LedgerEvent], list[LedgerEvent]]:
    """Generate two arrivals of one story: both lose the same reports, and shuffle and repeat the others."""
    sent = draw(story)
    arrived = [event for event in sent if draw(st.integers(0, 3))]
    again = st.lists(st.sampled_from(arrived), max_size=4) if arrived else st.just([])
    return tuple(draw(st.permutations([*arrived, *draw(again)])) for _ in range(2))  # type: ignore[return-value]


def cuts(count: int) -> SearchStrategy[list[int]]:
    """Generate the positions at which a history is cut into batches."""
    return st.lists(st.integers(0, count), max_size=6).map(sorted)
