"""Settings of every test: a coroutine runs on an event loop of its own, and Hypothesis has one profile."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.seeds import SEED
from tests.sockets import short_folder

settings.register_profile(
    "podledger",
    derandomize=False,
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("podledger")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room in a socket's address."""
    with short_folder() as folder:
        yield folder


def pytest_report_header() -> str:
    """Return the line with the seed of the random tests, which repeats a failure."""
    return f"podledger: PODLEDGER_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the totals of `record_property` over all tests, which are the figures of a soak."""
    counted: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        test = report.nodeid.partition("::")[2].partition("[")[0]
        for name, value in report.user_properties:
            counted[f"{test}: {name}"] += value
    if counted:
        terminalreporter.section("counted")
        for what, count in counted.items():
            terminalreporter.write_line(f"{what} {count:,}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function; leave any other to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
