"""Sending an event: make its line, and deliver it blocking, asynchronously, or as fire and forget.

This module imports neither SQLAlchemy, pydantic nor asyncio, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from podledger.client import background
from podledger.client.delivery import deliver, deliver_confirmed
from podledger.client.lines import line_of
from podledger.client.sockets import TIMEOUT_S
from podledger.client.spooled import spool_for
from podledger.core.stamps import Stamper, process_stamper

if TYPE_CHECKING:
    from podledger.client.frames import Recorded
    from podledger.core.events import Event

T = TypeVar("T")

__all__ = [
    "asking_line",
    "deliver",
    "deliver_async",
    "deliver_confirmed",
    "event_line",
    "fire_and_forget",
    "in_pool",
    "line_of",
    "send_pod_event",
]


def event_line(event: Event, stamper: Stamper | None = None) -> bytes:
    """Return the line that reports `event`; unless it has a stamp, `stamper` (by default this process's) adds one."""
    return line_of(_stamped(event, stamper))


def asking_line(event: Event, stamper: Stamper | None = None) -> tuple[str, bytes]:
    """Return the line that reports `event` and asks for an answer, after the id of its stamp."""
    fields = _stamped(event, stamper)
    fields["stamp"] |= {"ack": True}
    return fields["stamp"]["id"], line_of(fields)


def _stamped(event: Event, stamper: Stamper | None) -> dict[str, Any]:
    fields = event.model_dump(mode="json", exclude_none=True)
    if event.stamp is None:
        stamper = stamper or process_stamper()
        fields["stamp"] = stamper.stamp(stamper.subject(event.kind, event.about))
    return fields


def send_pod_event(
    socket: str | os.PathLike[str],
    event: Event,
    *,
    timeout_s: float = TIMEOUT_S,
    stamper: Stamper | None = None,
    confirm: bool = False,
    spool: str | os.PathLike[str] | None = None,
) -> Coroutine[Any, Any, Recorded | None]:
    """Report `event` to the pod that listens on `socket`, and wait until it is sent.

    With `confirm`, wait until the receiver has committed it, and return the entry's `seq` and `outcome`. The event is
    stamped when you call this, not when you await it: sequences follow the order of the calls. Each socket operation
    may take `timeout_s` seconds, and so may the answer.

    With `spool`, a folder, or with `PODLEDGER_SPOOL` for reports to the parent, the event is in the spool when the call
    returns, and it is sent in the background until it is acknowledged. The await then waits for nothing else, except
    with `confirm`.

    Raises:
        OSError: on the call, if the spool cannot be written. On await, if the event was not sent; a `TimeoutError` if
            it took too long. With `confirm`, also if the receiver offers no acknowledgements, refused the event, or did
            not answer in time; a spool keeps the event unless it was refused.
    """
    if (folder := spool_for(socket, spool)) is not None:
        from podledger.client import spool_sender

        return spool_sender.send(folder, os.fspath(socket), event, stamper, confirm_s=timeout_s if confirm else None)
    if confirm:
        stamp_id, line = asking_line(event, stamper)
        return in_pool(partial(deliver_confirmed, socket, line, stamp_id, timeout_s=timeout_s))
    return deliver_async(socket, event_line(event, stamper), timeout_s=timeout_s)


def fire_and_forget(
    socket: str | os.PathLike[str] | None, event: Event, *, spool: str | os.PathLike[str] | None = None
) -> None:
    """Report `event` to `socket` in the background and return at once; if `socket` is None, do nothing.

    A failure becomes one warning in the log `podledger.sender`. Events for one socket are sent in order. When the
    program ends, the interpreter waits for queued events, within the time limits.

    With `spool`, a folder, or with `PODLEDGER_SPOOL` for reports to the parent, the event is in the spool when the call
    returns, and it is sent until it is acknowledged. If the spool cannot be written, one warning says so, and the event
    is sent without it.
    """
    if socket is None:
        return
    try:
        if (folder := spool_for(socket, spool)) is not None:
            from podledger.client import spool_sender

            spool_sender.fire(folder, os.fspath(socket), event)
            return
        background.enqueue(os.fspath(socket), event_line(event))
    except Exception as error:  # noqa: BLE001 - a failed report must not stop the pod
        background.warn(str(socket), error)


async def deliver_async(socket_path: str | os.PathLike[str], line: bytes, *, timeout_s: float = TIMEOUT_S) -> None:
    """Call `deliver` in the client's own pool.

    Raises:
        OSError: as for `deliver`.
    """
    await in_pool(partial(deliver, socket_path, line, timeout_s=timeout_s))


async def in_pool(work: Callable[[], T]) -> T:
    """Do blocking work on a thread of the client's own pool, so that the event loop's threads stay free.

    Raises:
        OSError: no thread can start, or the work raises it.
    """
    import asyncio

    try:
        working = asyncio.get_running_loop().run_in_executor(background.pool(), work)
    except RuntimeError as error:
        if not background.exiting():
            raise OSError(errno.EAGAIN, str(error)) from error
        return work()  # no thread can start while the interpreter shuts down
    return await working
