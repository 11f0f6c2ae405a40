"""Delegations: the part that `pod_spawned` and `scope_sub_delegated` have in common."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple, NotRequired

from pydantic import Strict, TypeAdapter, ValidationError
from pydantic_core import to_json
from typing_extensions import TypedDict

from podledger.core.errors import ProtocolError
from podledger.core.events import Event, PodSpawned, ScopeSubDelegated
from podledger.core.fields import PodName, Scope, Text

_SCOPE = TypeAdapter(Scope)


class Delegation(NamedTuple):
    """The socket, scope and parent of a pod. `scope` is canonical JSON; `callback_address` is None if not stated."""

    socket_path: str
    scope: str
    parent_pod: str
    callback_address: str | None


def delegation_of(event: Event, owner: str) -> Delegation | None:
    """Return the delegation in an event, or None if the event is of another kind."""
    match event:
        case PodSpawned():
            return Delegation(event.socket_path, scope_text(event.scope), owner, event.callback_address)
        case ScopeSubDelegated():
            return Delegation(event.sub_socket, scope_text(event.scope), event.parent_pod, None)
        case _:
            return None


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


class _Delegated(TypedDict):
    sub_socket: str
    scope: list[_Rule]
    parent_pod: PodName


_SPAWNED, _DELEGATED = TypeAdapter(_Spawned), TypeAdapter(_Delegated)


def delegation_from(kind: str, payload: str, owner: str) -> Delegation:
    """Return the delegation in a stored payload.

    It validates into dictionaries, which is faster than into models: a rebuild reads each delegation of the log.

    Raises:
        ProtocolError: the payload is not a delegation.
    """
    try:
        if kind == "pod_spawned":
            spawned = _SPAWNED.validate_json(payload)
            scope, callback = spawned.get("scope", []), spawned.get("callback_address", "")
            return Delegation(spawned["socket_path"], _canonical(scope), owner, callback)
        told = _DELEGATED.validate_json(payload)
        return Delegation(told["sub_socket"], _canonical(told["scope"]), told["parent_pod"], None)
    except ValidationError as error:
        raise ProtocolError(f"the payload of a {kind} is not a delegation") from error


def _canonical(scope: list[_Rule]) -> str:
    """Return the text that `scope_text` writes for the same scope."""
    for rule in scope:
        rule.setdefault("recursive", True)
    return to_json(scope).decode()
