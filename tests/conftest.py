"""What all tests share: asynchronous tests run on a loop of their own; hypothesis tries as often everywhere."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

from tests.faults.samples import SEED

settings.register_profile(
    "podledger",
    derandomize=False,
    deadline=None,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("podledger")


def pytest_report_header() -> str:
    """The seed of the tests that roll dice, to play a failure again."""
    return f"podledger: PODLEDGER_SEED={SEED}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests counted with `record_property`, in all: the figures of a soak."""
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
