"""Facts that the owner states about its children: `spawned`, `exited` and `release` append one each."""

from __future__ import annotations

from argparse import Namespace
from typing import Any, Final

from podledger.cli.output import print_json
from podledger.cli.session import with_ledger
from podledger.core.entries import Entry
from podledger.core.errors import InvalidEventError, ProtocolError, UsageError
from podledger.core.events import Evidence, LedgerEvent, event_from
from podledger.core.text import escape
from podledger.ledger import Ledger

CLEAR: Final = ("applied", "noted", "confirmed", "revived")
"""The outcomes that need no explanation."""


def record(args: Namespace, fields: dict[str, Any], evidence: Evidence | None = None) -> None:
    """Append a fact and print its outcome, with the reason if it changed nothing.

    Raises:
        InvalidEventError: a field is not valid.
        UsageError: the owner is said to have spawned itself.
    """
    event = _event(fields)

    async def work(ledger: Ledger) -> tuple[Entry, str]:
        if event.about == ledger.name and event.kind == "pod_spawned":
            raise UsageError(f"{ledger.name!r} owns this ledger and cannot be its own child", hint="name the child")
        entry = await ledger.append(event, evidence=evidence)
        return entry, "" if args.json or entry.outcome in CLEAR else await _reason(ledger, entry)

    entry, reason = with_ledger(args, work)
    if args.json:
        print_json(entry.as_json())
    else:
        because = f": {reason.removeprefix(f'{entry.outcome}: ')}" if reason else ""
        print(f"{entry.kind} {escape(entry.pod_name)}: {entry.outcome} at seq {entry.seq}{because}")


async def _reason(ledger: Ledger, entry: Entry) -> str:
    """Return in words why a fact had its outcome."""
    because = ""
    async for explained in ledger.explain(entry.pod_name, at=entry.seq):
        because = explained.because
    return because


def _event(fields: dict[str, Any]) -> LedgerEvent:
    try:
        return event_from({name: value for name, value in fields.items() if value is not None})
    except ProtocolError as error:
        raise InvalidEventError(error.message, hint="correct the argument") from error
