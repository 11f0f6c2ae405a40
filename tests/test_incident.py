"""The incident in the documentation: each of its commands is run on its ledger, and the output compared."""

from __future__ import annotations

import re

from tests.incident import PAGE, updated


def test_every_command_prints_the_documented_output() -> None:
    page = PAGE.read_text()

    assert len(re.findall(r"^\$ podledger ", page, re.MULTILINE)) >= 12
    assert updated(page).splitlines() == page.splitlines()
