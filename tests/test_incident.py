"""The incident that is told in the documentation: its ledger made anew, each of its commands run and compared."""

from __future__ import annotations

import re

from tests.incident import PAGE, written


def test_every_command_prints_what_the_page_says() -> None:
    page = PAGE.read_text()

    assert len(re.findall(r"^\$ podledger ", page, re.MULTILINE)) >= 12
    assert written(page).splitlines() == page.splitlines()
