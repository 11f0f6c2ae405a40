"""The commands of `docs/incident.md`, run on a fresh copy of its ledger."""

from __future__ import annotations

import re

from tests.incident import PAGE, with_output


def test_every_command_prints_as_shown() -> None:
    """If only wording changed, `python -m tests.incident` rewrites the page."""
    page = PAGE.read_text()

    assert len(re.findall(r"^\$ podledger ", page, re.MULTILINE)) >= 12
    assert with_output(page).splitlines() == page.splitlines()
