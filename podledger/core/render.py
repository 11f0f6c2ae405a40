"""Events as text: one line for a person or an agent."""

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

MAX_MESSAGE_CHARACTERS: Final = 4096
"""`render` cuts messages, reasons and socket paths at this length."""


def render(event: Event) -> str:
    """Return one line that describes `event`. Text from pods is escaped, and long text is cut."""
    name = escape(event.about)
    match event:
        case TurnEnded():
            return f"Pod `{name}` finished a turn."
        case Errored():
            return f"Pod `{name}` reported an error: {escape(event.message, MAX_MESSAGE_CHARACTERS)}"
        case ShutDown():
            return f"Pod `{name}` has stopped."
        case ScopeSubDelegated():
            return f"Pod `{escape(event.parent_pod)}` spawned `{name}` and delegated scope to it."
        case PodSpawned():
            socket = escape(event.socket_path, MAX_MESSAGE_CHARACTERS)
            return f"Pod `{name}` was spawned, {f'with its socket at {socket}' if socket else 'without a socket'}."
        case PodExited():
            how = f"with code {event.exit_code}" if event.signal is None else f"by signal {event.signal}"
            return f"Pod `{name}` exited {how}."
        case PodUnreachable():
            return (
                f"Pod `{name}` did not answer (attempt {event.attempt}): {escape(event.reason, MAX_MESSAGE_CHARACTERS)}"
            )
        case PodReclaimed():
            return f"Pod `{name}` was reclaimed: {escape(event.reason, MAX_MESSAGE_CHARACTERS)}"
        case _:
            raise TypeError(f"cannot render {type(event).__name__}")
