"""Explain in words why each event had its outcome: apply the fold again, and add the reasons.

The functions are pure: they take an entry and the history before it, and return a sentence.
"""

from __future__ import annotations

from typing import NamedTuple

from podledger.core.delegations import Delegation
from podledger.core.entries import Entry
from podledger.core.events import DELEGATIONS
from podledger.core.rules import UNHEARD, Decision, Fact, State, Tenure, fold
from podledger.core.text import escape


class Explained(NamedTuple):
    """An entry, and the reason for its outcome."""

    entry: Entry
    because: str

    def as_json(self) -> dict[str, object]:
        """Return the entry as `explain --json` prints it."""
        return self.entry.as_json() | {"because": self.because}


class PodHistory:
    """The history of one pod name, event by event.

    `state` holds the rules' knowledge so far. The history also keeps the seq at which the rules learned each fact.
    """

    def __init__(self, pod_name: str) -> None:
        self.pod_name = escape(pod_name)
        self.state: State = UNHEARD
        self._emissions: set[tuple[str | int | None, ...]] = set()
        self._newest_seq = 0
        self._over_seq = 0

    def explain(self, entry: Entry, fact: Fact) -> Explained:
        """Fold the next entry, and return it with the reason for its outcome."""
        emission = (entry.source, entry.sequence, entry.stamp_id)
        repeated = entry.source is not None and emission in self._emissions
        if entry.source is not None and entry.outcome == "duplicate":  # it may repeat an entry about another pod
            repeated = repeated or fold(self.state, fact).outcome != "duplicate"
        self._emissions.add(emission)
        decision, why = self.fold(fact._replace(repeated=repeated))
        if decision.outcome != entry.outcome:
            why += f" (logged as {entry.outcome!r}, by version {entry.rules} of the rules)"
        return Explained(entry, why)

    def fold(self, fact: Fact) -> tuple[Decision, str]:
        """Fold the next event, and return the decision of the rules with its reason."""
        before, decision = self.state, fold(self.state, fact)
        why = self._why(before, fact, decision)
        if decision.state.newest != before.newest:
            self._newest_seq = fact.seq
        if decision.state.status != before.status:
            self._over_seq = fact.seq
        self.state = decision.state
        return decision, why

    def status(self) -> str:
        """Return whether the pod is in the registry, since when or why not, as a sentence."""
        tenure = self.state.tenure
        match self.state.status:
            case "open" if tenure is not None:
                return f"{self.pod_name} is in the registry, in its tenure from seq {tenure.from_seq}"
            case "inferred":
                return f"{self.pod_name} is not in the registry: it was reclaimed at seq {self._over_seq}"
            case "ended":
                return f"{self.pod_name} is not in the registry: it stopped at seq {self._over_seq}"
            case _:
                return f"{self.pod_name} is not in the registry: nobody ever delegated it"

    def _why(self, before: State, fact: Fact, decision: Decision) -> str:
        if fact.repeated:
            return "duplicate: it repeats an earlier entry, with the same source, sequence and id"
        if fact.subject is not None and (stopped := self._stopped_by_incarnation(before, fact, decision)):
            return stopped
        match fact.kind:
            case "pod_spawned" | "scope_sub_delegated":
                return self._of_delegation(before, fact, decision)
            case "turn_ended" | "errored":
                return self._of_activity(before, decision)
            case "shut_down" | "pod_exited":
                return self._of_end(before, decision)
            case "pod_unreachable":
                return self._of_suspicion(decision)
            case "pod_reclaimed":
                return self._of_reclaim(before, decision)

    def _stopped_by_incarnation(self, before: State, fact: Fact, decision: Decision) -> str:
        """Return the reason why step one of the rules decided the outcome, or "" if it did not."""
        subject, newest = fact.subject or "", before.newest
        if fact.kind == "pod_spawned":
            return ""
        if newest is not None and subject < newest:
            return f"late: it is about an earlier incarnation; a newer one is known since seq {self._newest_seq}"
        if subject == newest:
            replaced = before.tenure is not None and before.tenure.incarnation is None
            opened = before.tenure.from_seq if before.tenure else 0
            return (
                f"late: it is about the incarnation before the unstamped delegation of seq {opened}" if replaced else ""
            )
        if decision.outcome == "unknown":
            end = "; a delegation of it that follows is late" if subject in decision.state.early_ends else ""
            return f"unknown: this incarnation was never delegated here{end}"
        if decision.outcome == "conflict" and before.tenure is not None:
            return f"conflict: the owner itself spawned the pod that is open since seq {before.tenure.from_seq}"
        if decision.outcome == "late" and fact.kind in DELEGATIONS:
            return "late: the end of this incarnation was reported before its delegation"
        return ""

    def _of_delegation(self, before: State, fact: Fact, decision: Decision) -> str:
        tenure = before.tenure
        match decision.outcome:
            case "duplicate" if tenure is not None:
                return f"duplicate: same as the delegation of seq {tenure.from_seq}"
            case "conflict" if tenure is not None and fact.delegation is not None:
                others = " and ".join(f"other {name}" for name in _differing(tenure, fact.delegation))
                return f"conflict: same name, {others}; the first, of seq {tenure.from_seq}, is kept"
            case "late":
                return f"late: delegated after the pod {self._over(before)}"
            case _ if before.status == "open" and tenure is not None:
                before_it = f"superseded the tenure from seq {tenure.from_seq}"
                return f"{before_it}: another incarnation was delegated; opened a tenure"
            case _:
                after = f": the one before {self._over(before)}" if before.status in ("inferred", "ended") else ""
                return f"opened a tenure{after}"

    def _of_activity(self, before: State, decision: Decision) -> str:
        match decision.outcome:
            case "revived":
                return f"revived: it reported after it {self._over(before)}; a report outweighs what was inferred"
            case "late":
                return f"late: reported after the pod {self._over(before)}"
            case "unknown":
                return _UNKNOWN
            case _:
                return "noted: the pod was in the registry, and stays there"

    def _of_end(self, before: State, decision: Decision) -> str:
        match decision.outcome:
            case "confirmed":
                return f"confirmed: it {self._over(before)}, and now its end is known for certain"
            case "duplicate":
                return f"duplicate: the pod {self._over(before)} already"
            case "unknown":
                return _UNKNOWN
            case _:
                return f"ended the tenure from seq {before.tenure.from_seq if before.tenure else 0}"

    def _of_suspicion(self, decision: Decision) -> str:
        if decision.outcome == "noted":
            return "noted: a suspicion, which changes nothing"
        return "ignored: the pod was not in the registry"

    def _of_reclaim(self, before: State, decision: Decision) -> str:
        if decision.outcome == "applied" and before.tenure is not None:
            return f"ended the tenure from seq {before.tenure.from_seq}; a report from the pod would bring it back"
        return "ignored: the pod was not in the registry"

    def _over(self, before: State) -> str:
        """Return how and when the last tenure ended."""
        verb = "had been reclaimed" if before.status == "inferred" else "had stopped"
        return f"{verb} at seq {self._over_seq}"


_UNKNOWN = "unknown: nothing was known of this pod"


def _differing(tenure: Tenure, delegation: Delegation) -> list[str]:
    names = ("socket", "scope", "parent")
    stored = (tenure.socket_path, tenure.scope, tenure.parent_pod)
    return [name for name, one, other in zip(names, stored, delegation[:3], strict=True) if one != other]
