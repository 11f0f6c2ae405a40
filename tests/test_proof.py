"""Notes: a rewritten chain that verifies on its own does not match a note that was taken earlier."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from podledger import Ledger, Note
from podledger.core.digest import chain_digest
from podledger.core.errors import InvalidMomentError, MissingPackageError, UsageError
from podledger.integrity.notes import parse_note, parse_signed_note
from podledger.integrity.signing import is_signed_by, read_private_key, sign
from podledger.store.log import Head
from tests.given import make_ledger
from tests.runner import podledger, podledger_json


async def rewritten(path: Path) -> None:
    """Create the ledger at `path`, change one message, and recompute every digest after it."""
    await make_ledger(path)
    with sqlite3.connect(path) as db:
        (trigger,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'events_no_update'").fetchone()
        db.execute("DROP TRIGGER events_no_update")
        db.execute(
            """UPDATE events SET payload = '{"kind":"errored","pod_name":"scout","message":"fine"}' WHERE seq = 5"""
        )
        digest = "0" * 64
        for row in db.execute("SELECT * FROM events ORDER BY seq").fetchall():
            digest = chain_digest(digest, row)
            db.execute("UPDATE events SET digest = ? WHERE seq = ?", (digest, row[1]))
        head = Head(*db.execute("SELECT * FROM ledgers").fetchone())
        row_checksum = head._replace(head_digest=digest).with_checksum().row_checksum
        db.execute("UPDATE ledgers SET head_digest = ?, row_checksum = ?", (digest, row_checksum))
        db.execute(trigger)
    db.close()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The file of an Ed25519 private key; its public half is in `key.pub`."""
    private = Ed25519PrivateKey.generate()
    file = tmp_path / "key"
    file.write_bytes(
        private.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = private.public_key().public_bytes(Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    file.with_suffix(".pub").write_bytes(public)
    return file


async def test_notes_stay_valid_while_the_log_grows(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "db", "root") as ledger:
        empty = await ledger.note()
    await make_ledger(tmp_path / "db")
    async with Ledger.open(tmp_path / "db") as ledger:
        notes = [empty, *[await ledger.note(seq) for seq in range(1, 9)], await ledger.note()]
        digests = ["0" * 64, *[entry.digest async for entry in ledger.entries()]]

        assert notes == [Note(seq, digest) for seq, digest in enumerate(digests)] + [Note(8, digests[-1])]
        assert (await ledger.verify(expected=notes)).ok


async def test_rewritten_chain_verifies_but_contradicts_notes(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "honest")
    await rewritten(tmp_path / "forged")
    async with Ledger.open(tmp_path / "honest") as honest, Ledger.open(tmp_path / "forged") as forged:
        notes = [await honest.note(seq) for seq in (4, 5, 8)]

        assert (await forged.verify()).ok
        assert (await honest.verify(expected=notes)).ok
        found = await forged.verify(expected=notes)

    assert [(problem.check, problem.seq) for problem in found.problems] == [("expect", 5), ("expect", 8)]


async def test_truncated_log_contradicts_a_note(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "db")
    async with Ledger.open(tmp_path / "db") as ledger:
        found = await ledger.verify(expected=[Note(9, "a" * 64)])

    assert [(problem.check, problem.seq) for problem in found.problems] == [("expect", 9)]


async def test_commands_print_notes_and_compare_the_log(tmp_path: Path) -> None:
    await make_ledger(tmp_path / "honest")
    await rewritten(tmp_path / "forged")

    first = podledger("digest", "--db", tmp_path / "honest", "--at", "2026-01-01T00:00:03Z").out.strip()
    last = podledger_json("digest", "--db", tmp_path / "honest")
    expect: list[str | Path] = ["--expect", first, "--expect", f"{last['seq']}:{last['digest']}"]

    assert (first[:2], last["ledger"], last["seq"]) == ("3:", "root", 8)
    assert podledger_json("verify", "--db", tmp_path / "honest", *expect)["ok"]
    found = podledger_json("verify", "--db", tmp_path / "forged", *expect, status=1)
    assert [(problem["check"], problem["seq"]) for problem in found["problems"]] == [("expect", 8)]


async def test_signed_note_is_compared_with_the_log(tmp_path: Path, key: Path) -> None:
    await make_ledger(tmp_path / "honest")
    await rewritten(tmp_path / "forged")
    note = tmp_path / "note.json"
    note.write_text(podledger("digest", "--db", tmp_path / "honest", "--key", key).out)

    expect: list[str | Path] = ["--expect-note", note, "--public-key", key.with_suffix(".pub")]

    assert podledger_json("verify", "--db", tmp_path / "honest", *expect)["ok"]
    assert not podledger_json("verify", "--db", tmp_path / "forged", *expect, status=1)["ok"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("ledger", "other"), ("seq", 7), ("digest", "a" * 64), ("time", "2027-01-01T00:00:00Z"), ("signature", "00")],
)
async def test_changed_note_fails_its_signature(tmp_path: Path, key: Path, field: str, value: object) -> None:
    signed = sign("root", Note(8, "b" * 64), read_private_key(key), 0)
    changed = parse_signed_note(json.dumps(signed.as_json() | {field: value}))

    assert is_signed_by(signed, read_private_key(key).public_key())
    assert not is_signed_by(changed, read_private_key(key).public_key())
    assert not is_signed_by(signed, Ed25519PrivateKey.generate().public_key())


async def test_note_of_another_ledger_is_a_problem(tmp_path: Path, key: Path) -> None:
    await make_ledger(tmp_path / "db", "other")
    note = podledger("digest", "--db", tmp_path / "db", "--key", key).out
    await make_ledger(tmp_path / "db2", "root")
    (tmp_path / "note").write_text(note)

    expect: list[str | Path] = ["--expect-note", tmp_path / "note", "--public-key", key.with_suffix(".pub")]
    found = podledger_json("verify", "--db", tmp_path / "db2", *expect, status=1)

    assert "the note is of the ledger 'other'" in [problem["detail"] for problem in found["problems"]]


@pytest.mark.parametrize("text", ["", "1", "1:ab", "x:" + "a" * 64, "-1:" + "a" * 64, "1:" + "g" * 64])
def test_invalid_note_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is not a note"):
        parse_note(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ledger":"root"}', "1:" + "a" * 64])
def test_invalid_signed_note_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="no signed note"):
        parse_signed_note(text)


async def test_moment_beyond_the_log_has_no_note(tmp_path: Path) -> None:
    async with Ledger.open(tmp_path / "db", "root") as ledger:
        with pytest.raises(InvalidMomentError):
            await ledger.note(1)


def test_unusable_key_is_an_error_with_a_fix(tmp_path: Path, key: Path) -> None:
    refused = podledger("digest", "--db", tmp_path / "db", "--key", key.with_suffix(".pub"), status=2).err
    missing = podledger("digest", "--db", tmp_path / "db", "--key", tmp_path / "nothing", status=1).err
    alone = podledger("verify", "--db", tmp_path / "db", "--expect-note", key, status=2).err

    assert "holds no Ed25519 private key" in refused
    assert "openssl genpkey" in refused
    assert "No such file" in missing
    assert "--expect-note and --public-key go together" in alone


def test_missing_cryptography_is_an_error_with_a_fix(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)

    with pytest.raises(MissingPackageError) as caught:
        read_private_key(key)

    assert "podledger[sign]" in caught.value.hint


def test_signature_covers_the_documented_lines(key: Path) -> None:
    private = read_private_key(key)

    signed = sign("root", Note(8, "b" * 64), private, 1_767_225_600_000_000)

    public = private.public_key().public_bytes_raw().hex()
    lines = f"podledger note 1\nroot\n8\n{'b' * 64}\n2026-01-01T00:00:00.000000Z\n{public}\n"
    private.public_key().verify(bytes.fromhex(signed.signature), lines.encode())
    assert signed.public_key == public
