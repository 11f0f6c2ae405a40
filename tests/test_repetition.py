"""Emissions that share numbers: what they cost, and what an audit shows of them."""

from __future__ import annotations

import pytest

from podledger.core.events import LedgerEvent
from podledger.queries.replay import ReplayOptions, replay
from podledger.store.rebuild import differing
from tests.given import OWNER, spawned, stamped, turned
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
    appending = [bench.steps(lambda: bench.append(*claims(n, 500, same_id=same_id))) for n in (0, 500)]
    half, whole = reading_steps(bench, 501), reading_steps(bench, 1001)
    assert appending[1] < 1.5 * appending[0]
    assert whole < 3 * half


def reading_steps(bench: Bench, until: int) -> int:
    """Return what it costs to replay the log up to a seq."""
    return bench.steps(lambda: replay(bench.connection, OWNER, ReplayOptions(at=until)))


def test_rebuild_and_verify_of_shared_numbers_stay_cheap() -> None:
    def steps(count: int) -> int:
        bench = Bench([spawned("p"), *claims(0, count)])
        return bench.steps(lambda: (bench.verify(), differing(bench.connection, OWNER)))

    assert steps(1000) < 3 * steps(500)
