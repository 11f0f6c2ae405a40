"""Facts as the owner states them: with paths that mean the same in any folder, and processes that are identified."""

from __future__ import annotations

import os
from typing import TypeVar

from podledger.core.errors import InvalidEventError
from podledger.core.events import LedgerEvent, PodSpawned
from podledger.core.paths import is_absolute, normalise
from podledger.host.processes import start_of

E = TypeVar("E", bound=LedgerEvent)


def stated(event: E) -> E:
    """Return an event as the owner states it now: in a spawn, paths are absolute and the process has its start.

    Raises:
        InvalidEventError: a path is relative, and the current folder has no name.
    """
    if not isinstance(event, PodSpawned):
        return event
    event = with_absolute_paths(event)
    if event.pid is None or event.start is not None or (start := start_of(event.pid)) is None:
        return event
    return event.model_copy(update={"start": start})


def with_absolute_paths(event: E) -> E:
    """Return an event with the sockets and targets of a spawn made absolute; other events state no paths of the owner.

    Raises:
        InvalidEventError: a path is relative, and the current folder has no name.
    """
    if not isinstance(event, PodSpawned):
        return event
    changes: dict[str, object] = {}
    for field, path in (("socket_path", event.socket_path), ("callback_address", event.callback_address)):
        if path and not is_absolute(path):
            changes[field] = absolute(path)
    if not all(is_absolute(rule.target) for rule in event.scope):
        changes["scope"] = tuple(rule.model_copy(update={"target": absolute(rule.target)}) for rule in event.scope)
    return event.model_copy(update=changes) if changes else event


def absolute(path: str) -> str:
    """Return a path as it is if it is absolute, else from the root through the current folder.

    Symbolic links are not resolved, because they may change.

    Raises:
        InvalidEventError: the path is relative, and the current folder has no name.
    """
    if is_absolute(path):
        return path
    try:
        folder = os.getcwd()  # noqa: PTH109 - a `Path` would have to become text again
        folder.encode()
    except (OSError, UnicodeEncodeError) as error:
        reason = f"{path!r} is relative, and the current folder has no name that can be recorded"
        raise InvalidEventError(reason, hint="give an absolute path") from error
    return normalise(f"{folder}/{path}")
