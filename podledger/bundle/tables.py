"""The tables that only a bundle has. `docs/ledger-format.md` describes their columns."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text

BUNDLE_ID: Final = 0x706F6462
"""The application id in the header of a bundle: "podb"."""

metadata = MetaData()


def _number(name: str, *, primary_key: bool = False, nullable: bool = False) -> Column[int]:
    kind = BigInteger().with_variant(Integer, "sqlite")
    column: Column[int] = Column(name, kind, primary_key=primary_key, nullable=nullable, autoincrement=False)
    return column


def _text(name: str, *, primary_key: bool = False, nullable: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=primary_key, nullable=nullable)


bundle = Table(
    "bundle",
    metadata,
    _text("ledger", primary_key=True),
    _text("pod_name", nullable=True),
    _number("since_seq"),
    _number("until_seq"),
    _text("pods", nullable=True),
    _text("ancestry"),
    _number("rejected_count"),
    _number("made_us"),
    _text("texts_digest"),
    _text("row_checksum"),
    sqlite_strict=True,
)

withheld = Table(
    "withheld",
    metadata,
    _text("ledger", primary_key=True),
    _number("seq", primary_key=True),
    _text("payload_digest"),
    sqlite_strict=True,
)

bundle_gaps = Table(
    "bundle_gaps",
    metadata,
    _text("ledger", primary_key=True),
    _text("source", primary_key=True),
    _text("pod_name", nullable=True),
    _number("first", primary_key=True),
    _number("last"),
    _number("after_seq", nullable=True),
    _number("before_seq"),
    sqlite_strict=True,
)

bundle_texts = Table("bundle_texts", metadata, _text("name", primary_key=True), _text("content"), sqlite_strict=True)
