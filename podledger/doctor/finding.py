"""A finding of the doctor: its check, severity and detail, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from podledger.core.errors import DAMAGED_HINT, PodledgerError
from podledger.core.text import escape

Level = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """The result of one check: `ok`, a `warning` (a risk, or a past loss) or an `error`, and how to fix it."""

    check: str
    level: Level
    detail: str
    fix: str = ""


def all_ok(findings: Iterable[Finding]) -> bool:
    """Return whether no finding is an error. A warning is a risk, or something that cannot be undone."""
    return all(finding.level != "error" for finding in findings)


def guarded(check: str, work: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of `work`. If it fails, as it may on a damaged file, the failure is a finding too."""
    findings: list[Finding] = []
    try:
        findings.extend(work())
    except PodledgerError as error:
        findings.append(Finding(check, "error", error.message, error.hint))
    except Exception as error:  # noqa: BLE001 - a damaged file may raise any error, and the other checks must go on
        findings.append(Finding(check, "error", f"the check failed: {escape(repr(error), 300)}", DAMAGED_HINT))
    return findings
