"""What a delegation states of the pod that it lends a scope to."""

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
    """What a delegation states of the pod. `scope` is canonical JSON; `callback_address` is None if not stated."""

    socket_path: str
    scope: str
    parent_pod: str
    callback_address: str | None


def delegation_of(event: Event, owner: str) -> Delegation | None:
    """What a delegation states; None for an event of another kind."""
    match event:
        case PodSpawned():
            return Delegation(event.socket_path, scope_text(event.scope), owner, event.callback_address)
        case ScopeSubDelegated():
            return Delegation(event.sub_socket, scope_text(event.scope), event.parent_pod, None)
        case _:
            return None


def scope_text(scope: Scope) -> str:
    """A scope as canonical JSON."""
    return _SCOPE.dump_json(scope).decode()


def scope_from(text: str) -> Scope:
    """The scope that `scope_text` wrote.

    Raises:
        ProtocolError: the text was damaged since.
    """
    try:
        return _SCOPE.validate_json(text)
    except ValidationError as error:
        raise ProtocolError("a scope that was stored is damaged", hint="run `podledger verify`") from error


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
    """What the payload of a delegation states, read without the rest of it.

    It validates into dictionaries, not models, because a rebuild does this for each delegation of the log.

    Raises:
        ProtocolError: it is no delegation.
    """
    try:
        if kind == "pod_spawned":
            spawned = _SPAWNED.validate_json(payload)
            scope, callback = spawned.get("scope", []), spawned.get("callback_address", "")
            return Delegation(spawned["socket_path"], _canonical(scope), owner, callback)
        told = _DELEGATED.validate_json(payload)
        return Delegation(told["sub_socket"], _canonical(told["scope"]), told["parent_pod"], None)
    except ValidationError as error:
        raise ProtocolError(f"the payload of a {kind} states no delegation") from error


def _canonical(scope: list[_Rule]) -> str:
    """What `scope_text` makes of the same scope."""
    for rule in scope:
        rule.setdefault("recursive", True)
    return to_json(scope).decode()
