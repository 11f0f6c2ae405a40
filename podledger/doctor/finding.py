"""A finding of the doctor: which check, how bad, what was found, and the mend."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from podledger.core.errors import DAMAGED_HINT, PodledgerError
from podledger.core.text import escape

Level = Literal["ok", "warning", "error"]


class Finding(NamedTuple):
    """What one check says: `ok`, a `warning` (a risk, or a loss to know of) or an `error`, and what mends it."""

    check: str
    level: Level
    detail: str
    fix: str = ""


def all_ok(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong: no error; a warning tells of a risk, or of what cannot be undone."""
    return all(finding.level != "error" for finding in findings)


def guarded(check: str, work: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of `work`; of a file that is damaged beyond what it expects, that it failed is one."""
    found: list[Finding] = []
    try:
        found.extend(work())
    except PodledgerError as error:
        found.append(Finding(check, "error", error.message, error.hint))
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of a check, the others must go on
        found.append(Finding(check, "error", f"the check failed: {escape(repr(error), 300)}", DAMAGED_HINT))
    return found
