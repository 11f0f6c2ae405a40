"""Sending: the frame of an event, and three faces of its delivery: blocking, asynchronous, fire and forget.

Free of SQLAlchemy, pydantic and asyncio, so that a process that sends one event and goes starts at once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from podledger.client import background
from podledger.client.delivery import TIMEOUT_S, deliver
from podledger.core import strict_json
from podledger.core.errors import InvalidEventError
from podledger.core.names import check_name
from podledger.core.stamps import Stamper, process_stamper

if TYPE_CHECKING:
    from podledger.core.events import Event

__all__ = ["deliver", "deliver_async", "event_line", "fire_and_forget", "line_of", "send_pod_event"]

_NAMES: Final = ("pod_name", "parent_pod", "sub_pod")


def line_of(fields: dict[str, Any]) -> bytes:
    """The frame that reports an event, given as its JSON object.

    Raises:
        InvalidNameError: it names a pod as none may be named.
        InvalidEventError: it holds text that is no Unicode.
    """
    for key in _NAMES:
        if key in fields:
            check_name(fields[key])
    try:
        return strict_json.dumps({"method": "pod_event", "params": fields}).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise InvalidEventError("a lone surrogate is no character", hint="give valid UTF-8") from error


def event_line(event: Event, stamper: Stamper | None = None) -> bytes:
    """The frame that reports `event`, stamped by `stamper` (or else this process's) unless it is already."""
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
    """Report `event` to the pod that listens on `socket`; each socket operation may take `timeout_s` seconds.

    The result is to be awaited; the stamp is taken before, so that its sequence follows the order of the calls.

    Awaiting raises:
        OSError: it was not sent; a `TimeoutError` if that took too long.
    """
    return deliver_async(socket, event_line(event, stamper), timeout_s=timeout_s)


def fire_and_forget(socket: str | os.PathLike[str] | None, event: Event) -> None:
    """Report `event` to `socket` some time soon, and return at once; without a socket, do nothing.

    A failure is one warning in the log of `podledger.sender`. Events for one socket go out in their order.
    The end of the program waits for what is under way, for as long as the time limits say.
    """
    if socket is None:
        return
    try:
        background.post(os.fspath(socket), event_line(event))
    except Exception as error:  # noqa: BLE001 - whatever it is, a report that fails must not hurt the pod
        background.warn(str(socket), error)


async def deliver_async(socket_path: str | os.PathLike[str], line: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
    """As `deliver`, on one of a few threads kept for it, so that the event loop's own stay free.

    Raises:
        OSError: as `deliver`.
    """
    import asyncio

    work = partial(deliver, socket_path, line, timeout_s=timeout_s)
    try:
        sending = asyncio.get_running_loop().run_in_executor(background.pool(), work)
    except RuntimeError as error:
        if not background.exiting():
            raise OSError(errno.EAGAIN, str(error)) from error
        work()  # at the interpreter's end no thread can be started any more
    else:
        await sending
