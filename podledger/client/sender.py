"""Sending an event: make its line, and deliver it blocking, asynchronously, or as fire and forget.

This module imports neither SQLAlchemy, pydantic nor asyncio, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from podledger.client import background
from podledger.client.delivery import deliver
from podledger.client.sockets import TIMEOUT_S
from podledger.core import strict_json
from podledger.core.errors import InvalidEventError
from podledger.core.names import check_name
from podledger.core.stamps import Stamper, process_stamper

if TYPE_CHECKING:
    from podledger.core.events import Event

__all__ = ["deliver", "deliver_async", "event_line", "fire_and_forget", "line_of", "send_pod_event"]

_NAMES: Final = ("pod_name", "parent_pod", "sub_pod")


def line_of(fields: dict[str, Any]) -> bytes:
    """Return the line that reports an event, which is given as its JSON object.

    Raises:
        InvalidNameError: a pod name is not valid.
        InvalidEventError: a text is not valid Unicode.
    """
    for key in _NAMES:
        if key in fields:
            check_name(fields[key])
    try:
        return strict_json.dumps({"method": "pod_event", "params": fields}).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise InvalidEventError("the event holds a lone surrogate", hint="give valid UTF-8") from error


def event_line(event: Event, stamper: Stamper | None = None) -> bytes:
    """Return the line that reports `event`; unless it has a stamp, `stamper` (by default this process's) adds one."""
    fields = event.model_dump(mode="json", exclude_none=True)
    if event.stamp is None:
        stamper = stamper or process_stamper()
        fields["stamp"] = stamper.stamp(stamper.subject(event.kind, event.about))
    return line_of(fields)


def send_pod_event(
    socket: str | os.PathLike[str],
    event: Event,
    *,
    timeout_s: float = TIMEOUT_S,
    stamper: Stamper | None = None,
) -> Coroutine[Any, Any, None]:
    """Report `event` to the pod that listens on `socket`, and wait until it is sent.

    The event is stamped when you call this, not when you await it: sequences follow the order of the calls. Each socket
    operation may take `timeout_s` seconds.

    Raises:
        OSError: on await, if the event was not sent; a `TimeoutError` if it took too long.
    """
    return deliver_async(socket, event_line(event, stamper), timeout_s=timeout_s)


def fire_and_forget(socket: str | os.PathLike[str] | None, event: Event) -> None:
    """Report `event` to `socket` in the background and return at once; if `socket` is None, do nothing.

    A failure becomes one warning in the log `podledger.sender`. Events for one socket are sent in order. When the
    program ends, the interpreter waits for queued events, within the time limits.
    """
    if socket is None:
        return
    try:
        background.enqueue(os.fspath(socket), event_line(event))
    except Exception as error:  # noqa: BLE001 - a failed report must not stop the pod
        background.warn(str(socket), error)


async def deliver_async(socket_path: str | os.PathLike[str], line: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
    """Call `deliver` on a thread of the client's own pool, so that the event loop's threads stay free.

    Raises:
        OSError: as for `deliver`.
    """
    import asyncio

    work = partial(deliver, socket_path, line, timeout_s=timeout_s)
    try:
        sending = asyncio.get_running_loop().run_in_executor(background.pool(), work)
    except RuntimeError as error:
        if not background.exiting():
            raise OSError(errno.EAGAIN, str(error)) from error
        work()  # no thread can start while the interpreter shuts down
    else:
        await sending
