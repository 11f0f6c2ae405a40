"""Delegations: the part that `pod_spawned` and `scope_sub_delegated` have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from pydantic import Strict, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from podledger.core.errors import ProtocolError
from podledger.core.events import Event, PodSpawned, ScopeSubDelegated
from podledger.core.fields import Int, PodName, Scope, Text
from podledger.core.relays import Relay

_SCOPE = TypeAdapter(Scope)


class Delegation(NamedTuple):
    """The socket, scope and parent of a pod, and who delegated it.

    `scope` is canonical JSON; `callback_address` is None unless the owner itself spawned the pod. `delegated_by` names
    the pod that really delegated: in a relay, `parent_pod` is the relaying owner. `speaker` is the incarnation of
    `delegated_by`, if known. `pid` and `start` identify the pod's process, if the owner stated it.
    """

    socket_path: str
    scope: str
    parent_pod: str
    callback_address: str | None
    delegated_by: str
    speaker: str | None
    pid: int | None = None
    start: str | None = None


def delegation_of(event: Event, owner: str) -> Delegation | None:
    """Return the delegation in an event, or None if the event is of another kind."""
    match event:
        case PodSpawned():
            scope, process = scope_text(event.scope), (event.pid, event.start)
            speaker = speaker_of(event)  # the owner's own incarnation, which its parent knows it by
            return Delegation(event.socket_path, scope, owner, event.callback_address, owner, speaker, *process)
        case ScopeSubDelegated():
            by = (event.relay and event.relay.delegated_by) or event.parent_pod
            return Delegation(event.sub_socket, scope_text(event.scope), event.parent_pod, None, by, speaker_of(event))
        case _:
            return None


def speaker_of(event: Event) -> str | None:
    """Return the incarnation that really spoke: of a relayed event, the one that the relay states."""
    if event.relay is not None:
        return event.relay.speaker
    return event.stamp.speaker if event.stamp else None


def scope_text(scope: Scope) -> str:
    """Return a scope as canonical JSON."""
    return _SCOPE.dump_json(scope).decode()


def scope_from(text: str) -> Scope:
    """Return the scope that `scope_text` wrote.

    Raises:
        ProtocolError: the text is damaged.
    """
    try:
        return _SCOPE.validate_json(text)
    except ValidationError as error:
        raise ProtocolError("a stored scope is damaged", hint="run `podledger verify`") from error


class _Rule(TypedDict):
    target: Text
    permission: Literal["read", "write"]
    recursive: NotRequired[Annotated[bool, Strict()]]


class _Spawned(TypedDict):
    socket_path: str
    scope: NotRequired[list[_Rule]]
    callback_address: NotRequired[str]
    pid: NotRequired[Int | None]
    start: NotRequired[Text | None]


class _Delegated(TypedDict):
    sub_socket: str
    scope: list[_Rule]
    parent_pod: PodName
    relay: NotRequired[Any]


_SPAWNED, _DELEGATED, _RELAY = TypeAdapter(_Spawned), TypeAdapter(_Delegated), TypeAdapter(Relay)


def delegation_from(kind: str, payload: str, owner: str, speaker: str | None) -> Delegation:
    """Return the delegation in a stored payload; `speaker` is the entry's.

    It validates into dictionaries, which is faster than into models: a rebuild reads each delegation of the log.

    Raises:
        ProtocolError: the payload is not a delegation.
    """
    try:
        if kind == "pod_spawned":
            spawned = _SPAWNED.validate_json(payload)
            scope, callback = spawned.get("scope", []), spawned.get("callback_address", "")
            process = (spawned.get("pid"), spawned.get("start"))
            return Delegation(spawned["socket_path"], _canonical(scope), owner, callback, owner, speaker, *process)
        fields = _DELEGATED.validate_json(payload)
    except ValidationError as error:
        raise ProtocolError(f"the payload of a {kind} is not a delegation") from error
    by = _delegated_by(fields.get("relay")) or fields["parent_pod"]
    return Delegation(fields["sub_socket"], _canonical(fields["scope"]), fields["parent_pod"], None, by, speaker)


def _delegated_by(relay: Any) -> str | None:
    """Return who really delegated, by a relay that may be malformed."""
    if relay is None:
        return None
    try:
        return _RELAY.validate_python(relay).delegated_by
    except ValidationError:
        return None


def _canonical(scope: list[_Rule]) -> str:
    """Return the text that `scope_text` writes for the same scope."""
    for rule in scope:
        rule.setdefault("recursive", True)
    return to_json(scope).decode()
