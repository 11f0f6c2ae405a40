"""Incarnations, stamps, and the stamper of each process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime

import pytest

from podledger.client.spawning import prepare_spawn
from podledger.core import stamps
from podledger.core.fields import Stamp
from podledger.core.stamps import INCARNATION_VARIABLE, POD_VARIABLE, Stamper, new_incarnation, process_stamper
from tests.given import incarnation


@pytest.fixture(autouse=True)
def _no_incarnation_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INCARNATION_VARIABLE, raising=False)
    monkeypatch.delenv(POD_VARIABLE, raising=False)


# Incarnations


def test_incarnation_is_a_uuid7() -> None:
    made = uuid.UUID(new_incarnation())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_incarnation_starts_with_the_clock_in_milliseconds() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = uuid.UUID(new_incarnation()).int >> 80
    assert before <= milliseconds <= time.time_ns() // 1_000_000


def test_later_incarnation_is_greater() -> None:
    made = [new_incarnation() for _ in range(2_000)]
    assert made == sorted(made)
    assert len(set(made)) == 2_000


def test_incarnation_is_greater_after_the_clock_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_incarnation()
    hour_ago_ns = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago_ns)
    made = [new_incarnation() for _ in range(100)]
    assert [before, *made] == sorted({before, *made})


def test_incarnation_is_greater_than_one_from_a_clock_ahead() -> None:
    ahead = incarnation(0xF000_0000)
    made = new_incarnation(after=ahead)
    assert made > ahead
    assert uuid.UUID(made).version == 7
    assert new_incarnation() < ahead, "a clock ahead of one pod says nothing about others"


def test_greatest_incarnation_does_not_stop_a_spawn() -> None:
    greatest = "ffffffff-ffff-7fff-bfff-ffffffffffff"
    assert uuid.UUID(new_incarnation(after=greatest)).version == 7


# Stamps


def test_receivers_accept_a_new_stamp() -> None:
    stamp = Stamp.model_validate(Stamper().stamp(new_incarnation()))
    assert stamp.sequence == 1
    assert abs(datetime.now(UTC).timestamp() - stamp.sent_us / 1e6) < 5


def test_unknown_subject_is_left_out() -> None:
    assert "subject" not in Stamper().stamp(None)
    assert Stamp.model_validate(Stamper().stamp(None)).subject is None


def test_each_stamp_has_its_own_id() -> None:
    stamper = Stamper()
    assert len({stamper.stamp(None)["id"] for _ in range(1_000)}) == 1_000


def test_sequence_has_no_gaps_with_many_threads() -> None:
    stamper = Stamper()
    taken: list[object] = []

    def take() -> None:
        taken.extend(stamper.stamp(None)["sequence"] for _ in range(1_000))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, taken), key=int) == [str(number) for number in range(1, 8_001)]


def test_shutdown_has_the_last_sequence() -> None:
    stamper = Stamper()
    kinds = ("turn_ended", "errored", "shut_down")
    sent = [stamper.stamp(stamper.subject(kind, "me")) for kind in kinds]
    assert [stamp["sequence"] for stamp in sent] == [1, 2, 3]


# Subjects


def test_stream_is_never_an_incarnation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INCARNATION_VARIABLE, incarnation(5))
    streams = {Stamper().source for _ in range(3)}
    assert len(streams) == 3
    assert incarnation(5) not in streams


def test_own_report_is_about_the_incarnation_from_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Stamper().subject("turn_ended", "me") is None
    monkeypatch.setenv(INCARNATION_VARIABLE, incarnation(5))
    stamper = Stamper()
    assert stamper.subject("turn_ended", "me") == incarnation(5)
    assert stamper.stamp(None)["speaker"] == incarnation(5)


@pytest.mark.parametrize("value", ["", "coder-7", "019cb3ff-9f03-4000-8000-000000000003"])
def test_variable_that_holds_no_incarnation_is_not_claimed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    monkeypatch.setenv(INCARNATION_VARIABLE, value)
    stamper = Stamper()
    assert stamper.subject("turn_ended", "me") is None
    Stamp.model_validate(stamper.stamp(None))
    assert ("is not a UUIDv7" in caplog.text) == bool(value)


def test_report_about_another_pod_claims_no_incarnation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INCARNATION_VARIABLE, incarnation(5))
    monkeypatch.setenv(POD_VARIABLE, "me")
    assert Stamper().subject("turn_ended", "me") == incarnation(5)
    assert Stamper().subject("turn_ended", "another") is None


def test_delegation_claims_only_an_incarnation_that_was_passed_on() -> None:
    assert Stamper().subject("scope_sub_delegated", "child") is None


def test_delegation_is_about_the_child() -> None:
    stamper = Stamper(speaker=incarnation(5))
    passed_on = stamper.spawn("child")
    assert passed_on != incarnation(5)
    assert stamper.subject("scope_sub_delegated", "child") == passed_on
    assert stamper.subject("turn_ended", "child") == passed_on


def test_child_keeps_its_incarnation_until_its_shutdown() -> None:
    stamper = Stamper()
    first = stamper.spawn("child")
    assert stamper.subject("turn_ended", "child") == first
    assert stamper.subject("shut_down", "child") == first
    assert stamper.subject("turn_ended", "child") is None


def test_respawned_child_gets_a_new_incarnation() -> None:
    stamper = Stamper()
    first = stamper.spawn("child")
    second = stamper.spawn("child")
    assert second > first
    assert stamper.subject("turn_ended", "child") == second


def test_remembered_incarnations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "MAX_INCARNATIONS", 3)
    stamper = Stamper()
    spawned = {number: stamper.spawn(f"p{number}") for number in (0, 1, 2, 3)}
    assert stamper.subject("turn_ended", "p0") is None
    assert [stamper.subject("turn_ended", f"p{number}") for number in (1, 2, 3)] == [spawned[n] for n in (1, 2, 3)]


# Processes


def test_process_has_one_stamper() -> None:
    assert process_stamper() is process_stamper()


SHOW = "from podledger.core.stamps import process_stamper; print(process_stamper().speaker)"


def test_child_uses_the_incarnation_from_its_parent() -> None:
    environment = os.environ | {INCARNATION_VARIABLE: incarnation(5)}
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == incarnation(5)


def test_process_without_an_incarnation_claims_none() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


FORK = """
import os, sys
from podledger.core.stamps import process_stamper
parent = process_stamper()
parent.stamp(None)
reader, writer = os.pipe()
if os.fork() == 0:
    child = process_stamper()
    os.write(writer, f"{child.source} {child.stamp(None)['sequence']} {child.speaker}".encode())
    os._exit(0)
os.wait()
print(parent.source, parent.stamp(None)["sequence"], os.read(reader, 999).decode())
"""


@pytest.mark.parametrize("inherited", [None, incarnation(5)], ids=["own", "from the parent"])
def test_forked_child_has_its_own_stamper(inherited: str | None) -> None:
    """If two processes shared a source, they would send one sequence number twice."""
    environment = os.environ | ({INCARNATION_VARIABLE: inherited} if inherited else {})
    done = subprocess.run([sys.executable, "-c", FORK], env=environment, capture_output=True, text=True, check=True)
    source, sequence, child_source, child_sequence, child_speaker = done.stdout.split()
    assert (sequence, child_sequence, child_speaker) == ("2", "1", "None")
    assert child_source != source


def test_prepared_spawn_gives_the_child_its_incarnation() -> None:
    stamper = Stamper()
    spawn = prepare_spawn("child", "/run/me.sock", socket_path="/run/child.sock", stamper=stamper)
    incarnation_of_child = stamper.subject("turn_ended", "child")
    assert spawn.environment == {
        "PODLEDGER_INCARNATION": incarnation_of_child,
        "PODLEDGER_POD": "child",
        "PODLEDGER_SOCKET": "/run/me.sock",
    }
    event = spawn.spawned(pid=7)
    assert (event.stamp and event.stamp.subject, event.pid, event.callback_address) == (
        *(incarnation_of_child, 7),
        "/run/me.sock",
    )
    assert stamper.subject("scope_sub_delegated", spawn.delegated("me").about) == incarnation_of_child


def test_stamps_need_only_the_standard_library() -> None:
    code = "import sys, podledger.core.stamps; print({'pydantic', 'sqlalchemy', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
