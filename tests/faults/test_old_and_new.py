"""Test databases of other releases: an old one is upgraded and works, a newer one is refused and left alone."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from podledger import Ledger, TurnEnded
from podledger.store.schema import SCHEMA_HEAD, migrations_folder
from tests.assets.make import asset
from tests.given import OWNER
from tests.runner import podledger, podledger_json

REVISIONS = sorted(path.name[:4] for path in (migrations_folder() / "versions").glob("[0-9]*.py"))
EVENTS = 20


@pytest.fixture(params=[revision for revision in REVISIONS if revision != SCHEMA_HEAD])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the path of a ledger as an earlier revision left it."""
    path = tmp_path / "old.db"
    shutil.copyfile(asset(request.param), path)
    path.chmod(0o600)
    return path


def test_older_database_is_refused_with_the_fix(old: Path) -> None:
    before = old.read_bytes()
    refused = podledger("--db", old, "events", status=None)
    assert refused.status == 1
    assert "older than this podledger's" in refused.err
    assert "podledger init" in refused.err
    assert old.read_bytes() == before


async def test_old_ledger_works_after_the_upgrade(old: Path) -> None:
    podledger("--db", old, "init", OWNER)
    async with Ledger.open(old) as ledger:
        assert (await ledger.verify()).ok
        assert len([entry async for entry in ledger.entries()]) == EVENTS
        assert (await ledger.append(TurnEnded(pod_name="pod-0"))).seq == EVENTS + 1
        assert (await ledger.verify()).ok
    for command in (("events",), ("pods", "--all"), ("notifications",), ("rejected",)):
        podledger("--db", old, *command)
    findings = podledger_json("--db", old, "doctor", status=None)["findings"]
    assert {finding["check"] for finding in findings if finding["level"] == "error"} <= {"outbox"}  # unsent reports


async def test_newer_database_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with Ledger.open(path, OWNER) as ledger:
        await ledger.append(TurnEnded(pod_name="child"))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9000'")
    connection.close()
    before = path.read_bytes()
    for command in (("events",), ("init", OWNER), ("verify",), ("doctor",)):
        refused = podledger("--db", path, *command, status=None)
        assert refused.status == 1
        assert "newer than this podledger" in refused.out + refused.err
    assert path.read_bytes() == before


def test_every_earlier_revision_has_its_ledger() -> None:
    assert [revision for revision in REVISIONS if not asset(revision).exists()] == [SCHEMA_HEAD]
