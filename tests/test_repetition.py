"""Emissions that share numbers: what they cost, and what an audit shows of them."""

from __future__ import annotations

import pytest

from podledger.core.events import LedgerEvent
from podledger.queries.replay import ReplayOptions, replay
from podledger.store.rebuild import differing
from tests.given import OWNER, incarnation, spawned, stamped, turned
from tests.support import Bench


def claims(first: int, count: int, *, same_id: bool = False) -> list[LedgerEvent]:
    """Return reports that all claim one place in one stream, each with its own id unless `same_id`."""
    event = stamped(turned("p"), 5, sequence=7)
    assert event.stamp is not None
    ids = [f"00000000-0000-4000-8000-{0 if same_id else number:012x}" for number in range(first, first + count)]
    return [event.model_copy(update={"stamp": event.stamp.model_copy(update={"id": each})}) for each in ids]


@pytest.mark.parametrize("same_id", [False, True])
def test_emissions_that_share_their_numbers_cost_no_more_than_others(same_id: bool) -> None:
    bench = Bench([spawned("p")])
    some, more = claims(0, 500, same_id=same_id), claims(500, 500, same_id=same_id)
    first, second = bench.steps(lambda: bench.append(*some)), bench.steps(lambda: bench.append(*more))
    assert second < 1.5 * first


def test_reading_of_shared_numbers_stay_cheap() -> None:
    def steps(count: int) -> int:
        bench = Bench([spawned("p"), *claims(0, count)])
        return bench.steps(lambda: [work(bench) for work in (Bench.verify, rebuilt, replayed, audited)])

    assert steps(1000) < 3 * steps(500)


def rebuilt(bench: Bench) -> object:
    return differing(bench.connection, OWNER)


def replayed(bench: Bench) -> object:
    return replay(bench.connection, OWNER, ReplayOptions())


def audited(bench: Bench) -> list[tuple[int, str, str]]:
    return bench.sql("SELECT seq, pod_name, detail FROM anomalies WHERE what = 'reused_number' ORDER BY seq")


def test_number_with_another_id_is_an_anomaly_and_a_repetition_is_none() -> None:
    sent, *forged = claims(1, 2)
    bench = Bench([spawned("p"), sent, sent, *forged, *forged, stamped(turned("p"), 6, sequence=7)])
    assert bench.outcomes()[1:] == ["noted", "duplicate", "noted", "duplicate", "noted"]
    assert [(seq, name) for seq, name, _ in audited(bench)] == [(4, "p")]
    assert audited(bench)[0][2] == f"turn_ended claims the number 7 of {incarnation(5)}, as seq 2 did with another id"
