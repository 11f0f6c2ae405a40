"""Explanations: for each event, what the ledger did with it and why, in words.

Pure: an entry and what was known before it go in, a sentence comes out.
"""

from __future__ import annotations

from typing import NamedTuple

from podledger.core.delegations import Delegation
from podledger.core.entries import Entry
from podledger.core.rules import UNHEARD, Decision, Fact, State, Tenure, fold, hear
from podledger.core.text import escape


class Explained(NamedTuple):
    """An entry, and why it had the outcome that it had."""

    entry: Entry
    because: str

    def as_json(self) -> dict[str, object]:
        """Return the entry as `explain --json` prints it."""
        return self.entry.as_json() | {"because": self.because}


def explain(history: PodHistory, entry: Entry, fact: Fact) -> Explained:
    """Explain the next entry of a pod's history."""
    decision, why = history.add(fact)
    if decision.outcome != entry.outcome:
        why += f" (logged as {entry.outcome!r}, by version {entry.rules} of the rules)"
    return Explained(entry, why)


class PodHistory:
    """The history of one pod name, event by event.

    `state` is what the rules know of it so far; the history adds at which seq that became known.
    """

    def __init__(self, pod_name: str) -> None:
        self.pod_name = escape(pod_name)
        self.state: State = UNHEARD
        self._named_seq = 0
        self._ended_seq = 0

    def add(self, fact: Fact) -> tuple[Decision, str]:
        """Apply the rules to the next event; return their decision, and why."""
        decision = fold(self.state, fact)
        heard = hear(self.state, fact, fact.subject) if fact.subject else Decision(decision.outcome, self.state)
        if fact.subject and heard.outcome == "late":
            why = self._earlier_incarnation(fact.subject)
        else:
            why = _named(heard, fact) + self._step_two(heard.state, fact, decision)
        if decision.state.newest != self.state.newest:
            self._named_seq = fact.seq
        if decision.state.status != heard.state.status:
            self._ended_seq = fact.seq
        self.state = decision.state
        return decision, why

    def status(self) -> str:
        """Return whether the pod is in the registry, and since when or why not."""
        tenure = self.state.tenure
        match self.state.status:
            case "open" if tenure is not None:
                return f"{self.pod_name} is in the registry, in its tenure from seq {tenure.from_seq}"
            case "inferred":
                return f"{self.pod_name} is not in the registry: it was reclaimed at seq {self._ended_seq}"
            case "ended":
                return f"{self.pod_name} is not in the registry: it stopped at seq {self._ended_seq}"
            case "heard":
                return (
                    f"{self.pod_name} is not in the registry: its newest incarnation was reported, and never delegated"
                )
            case _:
                return f"{self.pod_name} is not in the registry: nobody ever delegated it"

    def _earlier_incarnation(self, subject: str) -> str:
        """Return why step one of the rules took the event as late."""
        if self.state.newest is not None and subject < self.state.newest:
            return f"late: it is about an earlier incarnation; a newer one is known since seq {self._named_seq}"
        opened = self.state.tenure.from_seq if self.state.tenure else 0
        return f"late: it is about the incarnation before the unstamped delegation of seq {opened}"

    def _step_two(self, known: State, fact: Fact, decision: Decision) -> str:
        match fact.kind:
            case "pod_spawned" | "scope_sub_delegated":
                return self._delegation(known, fact, decision)
            case "turn_ended" | "errored":
                return self._activity(known, decision)
            case "shut_down" | "pod_exited":
                return self._ending(known, fact, decision)
            case "pod_unreachable":
                return self._suspicion(decision)
            case "pod_reclaimed":
                return self._reclaim(known, decision)

    def _delegation(self, known: State, fact: Fact, decision: Decision) -> str:
        tenure = known.tenure
        match decision.outcome:
            case "duplicate" if tenure is not None:
                return f"duplicate: same as the delegation of seq {tenure.from_seq}"
            case "conflict" if tenure is not None and fact.content is not None:
                others = " and ".join(f"other {name}" for name in _differing(tenure, fact.content))
                return f"conflict: same name, {others}; the first, of seq {tenure.from_seq}, is kept"
            case "late":
                return f"late: delegated after the pod {self._ended(known)}"
            case _:
                return f"opened a tenure{self._after(known)}"

    def _activity(self, known: State, decision: Decision) -> str:
        match decision.outcome:
            case "revived":
                return f"revived: it reported after it {self._ended(known)}; a report outweighs what was inferred"
            case "late":
                return f"late: reported after the pod {self._ended(known)}"
            case "unknown":
                return self._unknown(known)
            case _:
                return "noted: the pod was in the registry, and stays there"

    def _ending(self, known: State, fact: Fact, decision: Decision) -> str:
        match decision.outcome:
            case "confirmed":
                return f"confirmed: it {self._ended(known)}, and now its end is known for certain"
            case "duplicate":
                return f"duplicate: the pod {self._ended(known)} already"
            case "unknown":
                after = "; a later delegation of this incarnation will be late" if fact.subject else ""
                return self._unknown(known) + after
            case _:
                return f"ended the tenure from seq {known.tenure.from_seq if known.tenure else 0}"

    def _suspicion(self, decision: Decision) -> str:
        if decision.outcome == "noted":
            return "noted: a suspicion, which changes nothing"
        return "ignored: the pod was not in the registry"

    def _reclaim(self, known: State, decision: Decision) -> str:
        if decision.outcome == "applied" and known.tenure is not None:
            return f"ended the tenure from seq {known.tenure.from_seq}; a report from the pod would bring it back"
        return "ignored: the pod was not in the registry"

    def _unknown(self, known: State) -> str:
        if known.status == "heard":
            return "unknown: this incarnation was never delegated here"
        return "unknown: nothing was known of this pod"

    def _after(self, known: State) -> str:
        return f": the one before {self._ended(known)}" if known.status in ("inferred", "ended") else ""

    def _ended(self, known: State) -> str:
        """Return how and when it ended."""
        verb = "had been reclaimed" if known.status == "inferred" else "had stopped"
        return f"{verb} at seq {self._ended_seq}"


def _named(heard: Decision, fact: Fact) -> str:
    """Return what step one of the rules did, in words."""
    for tenure in heard.changed:
        if tenure.until_seq == fact.seq:
            return f"superseded the tenure from seq {tenure.from_seq}: it is about a newer incarnation; "
        return f"named the incarnation of the tenure from seq {tenure.from_seq}; "
    return ""


def _differing(tenure: Tenure, content: Delegation) -> list[str]:
    names = ("socket", "scope", "parent")
    opened = (tenure.socket_path, tenure.scope, tenure.parent_pod)
    return [name for name, one, other in zip(names, opened, content[:3], strict=True) if one != other]
