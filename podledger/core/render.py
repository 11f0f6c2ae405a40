"""One line of text for each event."""

from __future__ import annotations

from typing import Final

from podledger.core.events import (
    Errored,
    Event,
    PodExited,
    PodReclaimed,
    PodSpawned,
    PodUnreachable,
    ScopeSubDelegated,
    ShutDown,
    TurnEnded,
)
from podledger.core.text import escape

SHOWN_MESSAGE: Final = 4096
"""How many characters of a message or a reason `render` shows."""


def render(event: Event) -> str:
    """One line for a person or an agent. What a pod wrote is escaped, and a long message cut, so that it stays one."""
    name = escape(event.about)
    match event:
        case TurnEnded():
            return f"Pod `{name}` finished a turn."
        case Errored():
            return f"Pod `{name}` reported an error: {escape(event.message, SHOWN_MESSAGE)}"
        case ShutDown():
            return f"Pod `{name}` has stopped."
        case ScopeSubDelegated():
            return f"Pod `{escape(event.parent_pod)}` spawned `{name}` and delegated scope to it."
        case PodSpawned():
            return f"Pod `{name}` was spawned, with its socket at {escape(event.socket_path, SHOWN_MESSAGE)}."
        case PodExited():
            how = f"with code {event.exit_code}" if event.signal is None else f"by signal {event.signal}"
            return f"Pod `{name}` exited {how}."
        case PodUnreachable():
            return f"Pod `{name}` did not answer (attempt {event.attempt}): {escape(event.reason, SHOWN_MESSAGE)}"
        case PodReclaimed():
            return f"Pod `{name}` was reclaimed: {escape(event.reason, SHOWN_MESSAGE)}"
        case _:
            raise TypeError(f"no line for {type(event).__name__}")
