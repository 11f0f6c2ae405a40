"""The report that an owner owes its parent for an event: a pure function of the entry and of the tenures it changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podledger.core import strict_json
from podledger.core.entries import Entry
from podledger.core.events import DELEGATIONS, parse_event
from podledger.core.relays import Relay
from podledger.core.rules import Tenure


def owed_report(entry: Entry, changed: Sequence[Tenure]) -> dict[str, Any] | None:
    """Return the report for the owner's parent as a JSON object, or None if the event changed no tenure.

    A tenure that opened is reported as a delegation, one that ended as a shutdown, and one that a report brought back
    as that report. The stamp names the incarnation of the tenure, if it has one; its other fields are added when the
    report is sent for the first time.
    """
    if not changed:
        return None
    tenure = changed[-1]
    relay = parse_event(entry.payload).relay if entry.relayed_kind else None
    if tenure.until_seq is not None:
        report = {"kind": "shut_down", "pod_name": tenure.pod_name, "relay": _relay(entry, relay)}
    elif entry.kind in DELEGATIONS:
        report = _delegation(entry, tenure, relay)
    else:
        report = _activity(entry, tenure, relay)
    return report | ({"stamp": {"subject": tenure.incarnation}} if tenure.incarnation else {})


def needs_offer(report: dict[str, Any]) -> bool:
    """Return whether a report is only for a parent that offers to take relays: any other takes delegations alone."""
    return bool(report["kind"] != "scope_sub_delegated")


def _delegation(entry: Entry, tenure: Tenure, relay: Relay | None) -> dict[str, Any]:
    """The path grows by the owner at each step up, and a delegation that was relayed keeps who delegated it."""
    path = relay.path if relay else (() if tenure.delegated_by == entry.ledger else (tenure.delegated_by,))
    origin = {"delegated_by": tenure.delegated_by, "speaker": tenure.speaker, "path": [entry.ledger, *path]}
    return {
        "kind": "scope_sub_delegated",
        "parent_pod": entry.ledger,
        "sub_pod": tenure.pod_name,
        "sub_socket": tenure.socket_path,
        "scope": strict_json.loads(tenure.scope),
        "relay": {"kind": entry.kind, "evidence": entry.evidence} | origin | _witness(entry),
    }


def _activity(entry: Entry, tenure: Tenure, relay: Relay | None) -> dict[str, Any]:
    """The text of an error stays in the ledger of the owner that it was reported to, where it can be redacted."""
    message = {"message": f"the message is in the ledger of {entry.ledger}"} if entry.kind == "errored" else {}
    return {"kind": entry.kind, "pod_name": tenure.pod_name} | message | {"relay": _relay(entry, relay)}


def _relay(entry: Entry, relay: Relay | None) -> dict[str, Any]:
    """A relay of a relay keeps the kind and the evidence that the first owner recorded."""
    kind, evidence = (relay.kind, relay.evidence) if relay else (entry.kind, entry.evidence)
    return {"kind": kind, "evidence": evidence} | _witness(entry)


def _witness(entry: Entry) -> dict[str, Any]:
    return {"ledger": entry.ledger, "seq": entry.seq, "digest": entry.digest}
