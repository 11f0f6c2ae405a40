"""Streams: the kept runs of numbers that arrived, and the gaps between them, against a model that keeps sets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, groupby, pairwise
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from podledger.core.events import LedgerEvent
from podledger.core.fields import Stamp
from podledger.core.streams import Run, unbroken
from podledger.queries import gaps
from podledger.queries.gaps import Gap, Missing
from podledger.store.rebuild import differing
from tests import strategies
from tests.given import OWNER, delegated, incarnation, spawned, turned
from tests.strategies import cuts
from tests.support import Bench

GREATEST = (1 << 63) - 1

numbers = st.one_of(st.integers(1, 12), st.sampled_from((GREATEST, GREATEST - 1, GREATEST - 2, 1 << 40)))


_ids = count()


def emitted(source: int, number: int) -> Stamp:
    """Return a stamp that claims no incarnation, with an id of its own."""
    stream, made = incarnation(source), f"00000000-0000-4000-8000-{next(_ids):012x}"
    return Stamp(id=made, source=stream, sequence=number, time="2026-01-31T14:03:00Z")


class Emission(NamedTuple):
    """A report as the model sees it: its stream, its number, whether it names the sender, and the name."""

    source: int
    number: int
    names: bool
    name: str

    def event(self) -> LedgerEvent:
        """Return the event; each call has an id of its own."""
        event = turned(self.name) if self.names else delegated("new", parent=self.name)
        return event.model_copy(update={"stamp": emitted(self.source, self.number)})


emissions = st.lists(
    st.builds(Emission, st.integers(1, 3), numbers, st.booleans(), st.sampled_from(("a", "b"))), max_size=40
)


def runs_of(arrived: Sequence[Emission]) -> list[Run]:
    """Return the runs by the definition: the numbers of each stream as a set, cut where one is missing."""
    runs = []
    for source in sorted({each.source for each in arrived}):
        of = [(seq, each) for seq, each in enumerate(arrived, 1) if each.source == source]
        first_seq = {each.number: seq for seq, each in reversed(of)}
        for _, run in groupby(enumerate(sorted(first_seq)), lambda placed: placed[1] - placed[0]):
            held = [number for _, number in run]
            names = [each.name for _, each in of if each.names and held[0] <= each.number <= held[-1]]
            ends = (first_seq[held[0]], first_seq[held[-1]])
            runs.append(Run(incarnation(source), held[0], held[-1], *ends, max(names, default=None)))
    return runs


def gaps_of(arrived: Sequence[Emission]) -> list[Gap]:
    """Return the gaps before and between the runs."""
    found = []
    for source, of in groupby(runs_of(arrived), lambda run: run.source):
        runs = list(of)
        name = max((run.pod_name for run in runs if run.pod_name), default=None)
        last, after = 0, None
        for run in runs:
            if run.first > last + 1:
                found.append(Gap(source, name, last + 1, run.first - 1, after, run.first_seq))
            last, after = run.last, run.last_seq
    return sorted(found, key=lambda gap: (gap.before_seq, gap.source))


@given(st.data(), emissions)
def test_kept_runs_equal_the_model(data: st.DataObject, arrived: list[Emission]) -> None:
    bench = Bench()
    for batch in in_batches(arrived, data.draw(cuts(len(arrived)))):
        bench.append(*(each.event() for each in batch))
    assert bench.sql("SELECT * FROM streams ORDER BY 1, 2, 3") == [(OWNER, *run) for run in runs_of(arrived)]
    assert bench.verify().problems == ()
    assert differing(bench.connection, OWNER) == frozenset()


@given(emissions, st.integers(0, 40))
def test_gaps_equal_the_model_now_and_at_any_seq(arrived: list[Emission], at: int) -> None:
    bench = Bench([each.event() for each in arrived])
    at = min(at, len(arrived))
    assert gaps.gaps_at(bench.connection, OWNER, None) == gaps_of(arrived)
    assert gaps.gaps_at(bench.connection, OWNER, at) == gaps_of(arrived[:at])
    assert gaps.missing_at(bench.connection, OWNER, None) == missing_of(gaps_of(arrived))
    assert gaps.missing_at(bench.connection, OWNER, at) == missing_of(gaps_of(arrived[:at]))


def missing_of(found: Sequence[Gap]) -> Missing:
    return Missing(sum(gap.last - gap.first + 1 for gap in found), len({gap.source for gap in found}))


def in_batches(arrived: Sequence[Emission], at: Sequence[int]) -> list[Sequence[Emission]]:
    ends = [0, *at, len(arrived)]
    return [arrived[start:end] for start, end in pairwise(ends) if arrived[start:end]]


@given(emissions)
def test_repetition_is_recognized_in_any_stream(arrived: list[Emission]) -> None:
    bench = Bench()
    events = [each.event() for each in arrived]
    bench.append(*events)
    again = bench.append(*events) if events else []
    assert {entry.outcome for entry in again} <= {"duplicate"}
    others = [each.event() for each in arrived if each.names]
    assert all(entry.outcome != "duplicate" for entry in (bench.append(*others) if others else []))


@given(strategies.histories)
def test_parts_join_in_any_grouping(history: list[LedgerEvent]) -> None:
    parts = sorted(
        (event.stamp.source, event.stamp.sequence, event.stamp.sequence, seq, seq, None)
        for seq, event in enumerate(history, 1)
        if event.stamp
    )
    half = len(parts) // 2
    joined = sorted([*unbroken(parts[:half]), *unbroken(parts[half:])])
    assert list(unbroken(joined)) == list(unbroken(parts))


# Costs


def in_order(first: int, many: int, step: int = 1) -> list[LedgerEvent]:
    sequences = range(first, first + many * step, step)
    return [turned("p").model_copy(update={"stamp": emitted(1, number)}) for number in sequences]


def test_gaps_cost_the_same_for_any_length_of_log() -> None:
    bench = Bench([spawned("p"), *in_order(1, 50), *in_order(60, 50)])
    before = bench.steps(lambda: gaps.gaps_at(bench.connection, OWNER, None))
    bench.append(*in_order(110, 2_000))
    assert bench.steps(lambda: gaps.gaps_at(bench.connection, OWNER, None)) == before
    assert bench.steps(lambda: bench.sql("SELECT * FROM gaps")) < 10


def test_numbers_that_leave_gaps_cost_no_more_with_many() -> None:
    bench = Bench([spawned("p"), *in_order(GREATEST - 2, 1)])
    first = bench.steps(lambda: bench.append(*in_order(1, 500, step=7)))
    bench.append(*in_order(3_501, 2_000, step=7))
    later = bench.steps(lambda: bench.append(*in_order(17_501, 500, step=7)))
    between = bench.steps(lambda: bench.append(*in_order(3, 500, step=7)))
    assert max(later, between) < 1.5 * first


def test_stream_in_order_is_one_row() -> None:
    bench = Bench([spawned("p")])
    for event in in_order(1, 20):
        bench.append(event)
    assert bench.sql("SELECT first, last, first_seq, last_seq, pod_name FROM streams") == [(1, 20, 2, 21, "p")]
