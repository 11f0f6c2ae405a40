"""The possible states of a disk after a power loss, made from the journal of a process's changes to its files.

Synced changes survive. Each other write, truncation and change of a name may survive or not, and a write may survive
in part, by sectors. SQLite maps its shared index into memory and never syncs it, so it may hold anything.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512


class Record(NamedTuple):
    """One change: W write, T truncation, S sync, C new file, U unlink, R rename, A acknowledgement."""

    what: str
    inode: int
    offset: int
    name: str
    data: bytes


def read_journal(path: Path) -> list[Record]:
    """Return the records of a journal, in order."""
    return list(_records(path.read_bytes()))


def _records(journal: bytes) -> Iterator[Record]:
    at = 0
    while at < len(journal):
        end = journal.index(b"\n", at)
        what, inode, offset, length, name = journal[at:end].decode().split(" ", 4)
        at = end + 1 + int(length)
        yield Record(what, int(inode), int(offset), name.removesuffix(" (deleted)"), journal[end + 1 : at])


@dataclass
class File:
    """The synced content of a file, and the changes since the last sync."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for record in self.pending:
            _apply(self.synced, record)
        self.pending = []

    def after_loss(self, dice: random.Random) -> bytes:
        """Return what survives: no pending change, the first few, or any of them, each write whole or in part."""
        content = bytearray(self.synced)
        fate = dice.choice(("none", "prefix", "any", "torn"))
        kept = self.pending[: dice.randint(0, len(self.pending))] if fate == "prefix" else self.pending
        for record in kept if fate != "none" else ():
            if fate in ("any", "torn") and dice.random() < 0.5:
                continue
            torn = fate == "torn" and record.what == "W"
            for part in _sectors(record, dice) if torn else (record,):
                _apply(content, part)
        return bytes(content)


def _apply(content: bytearray, record: Record) -> None:
    if record.what == "T":
        del content[record.offset :]
        content.extend(bytes(record.offset - len(content)))
        return
    content.extend(bytes(max(0, record.offset - len(content))))
    content[record.offset : record.offset + len(record.data)] = record.data


def _sectors(record: Record, dice: random.Random) -> Iterator[Record]:
    for start in range(0, len(record.data), SECTOR):
        if dice.random() < 0.5:
            yield record._replace(offset=record.offset + start, data=record.data[start : start + SECTOR])


@dataclass
class Disk:
    """The files of one folder: their synced contents and their pending changes."""

    folder: str
    names: dict[str, File] = field(default_factory=dict)
    pending: list[tuple[str, File | None]] = field(default_factory=list)
    open: dict[int, File] = field(default_factory=dict)
    acked: list[tuple[int, str]] = field(default_factory=list)

    def apply(self, record: Record) -> None:
        match record.what:
            case "A":
                seq, digest = record.data.decode().split()
                self.acked.append((int(seq), digest))
            case "C":
                self.open[record.inode] = File()
                self.pending.append((record.name, self.open[record.inode]))
            case "W" | "T":
                self.open[record.inode].pending.append(record)
            case "S" if record.name == self.folder:
                self._sync_names()
            case "S":
                self.open[record.inode].sync()
            case "U":
                self.pending.append((record.name, None))
            case "R":
                source = record.data.decode()
                self.pending += [(record.name, self._now()[source]), (source, None)]

    def after_loss(self, dice: random.Random) -> dict[str, bytes]:
        """Return the content of each file that survives."""
        names = self._now(dice.randint(0, len(self.pending)))
        return {
            name: dice.randbytes(32768) if name.endswith("-shm") else file.after_loss(dice)
            for name, file in names.items()
        }

    def _now(self, changes: int | None = None) -> dict[str, File]:
        names = dict(self.names)
        for name, file in self.pending[:changes]:
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        return names

    def _sync_names(self) -> None:
        self.names = self._now()
        self.pending = []


def lose_power(records: list[Record], source: Path, target: Path, seed: int) -> list[tuple[int, str]]:
    """Write the files that survive a power loss at a random moment; return the entries acknowledged before."""
    dice = random.Random(seed)
    disk = Disk(str(source.resolve()))
    for record in records[: dice.randint(0, len(records))]:
        disk.apply(record)
    target.mkdir()
    for name, content in disk.after_loss(dice).items():
        (target / Path(name).name).write_bytes(content)
    return disk.acked
