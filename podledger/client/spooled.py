"""Reports by way of a spool: which spool keeps a report, its line there, and one attempt to send what waits.

This module imports little of the standard library, so that a short-lived sender starts fast.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from podledger.client import held
from podledger.client.delivery import deliver
from podledger.client.frames import Answer
from podledger.client.held import ANSWER_TIMEOUT_S, HeldConnection
from podledger.client.lines import line_of
from podledger.client.segments import Position
from podledger.client.spool import KEY, STATED, UNNAMED, SpoolStream
from podledger.core.errors import PodledgerError
from podledger.core.stamps import SOCKET_VARIABLE, SPOOL_VARIABLE, Stamper

SYNC_VARIABLE: Final = "PODLEDGER_SPOOL_SYNC"
"""The environment variable that, if it is not empty, has each report on the disk before its sender goes on."""

BUSY_POLL_S: Final = 0.02
"""How often to look whether another process still sends."""


def spool_for(socket: str | os.PathLike[str], given: str | os.PathLike[str] | None = None) -> str | None:
    """Return the spool for reports to `socket`: the given one, or the one that the parent passed to this pod.

    The parent's is for reports to the parent. So it does not apply if `PODLEDGER_SOCKET` names another socket.
    """
    if given is not None:
        return _absolute(given)
    own, parent = os.environ.get(SPOOL_VARIABLE), os.environ.get(SOCKET_VARIABLE)
    if not own or (parent and _absolute(parent) != _absolute(socket)):
        return None
    return _absolute(own)


def put(
    stream: SpoolStream,
    fields: dict[str, Any],
    stamper: Stamper,
    subject: str | None = None,
    *,
    announce: Callable[[str], object] = str,
) -> Position:
    """Append an event, given as its JSON object, to a stream; unless it has a stamp, it gets the stream's next number.

    `announce` is called with the id of the stamp before any process can send the event.

    Raises:
        OSError: it was not appended.
        InvalidNameError, InvalidEventError: as `line_of`.
    """
    is_stated = "stamp" in fields

    def line_at(source: str, sequence: int) -> bytes:
        if not is_stated:
            fields["stamp"] = stamper.stamp_at(source, sequence, subject)
        announce(fields["stamp"]["id"])
        return line_of(fields)

    return stream.append(line_at)


def stream_for(spool: str, fields: dict[str, Any], stamper: Stamper) -> SpoolStream:
    """Return the stream of an event: the one of the incarnation that speaks, if the event has no stamp yet."""
    if "stamp" in fields:
        return stream_of(spool, STATED)
    speaker = stamper.speaker or ""
    return stream_of(spool, speaker if KEY.fullmatch(speaker) else UNNAMED)


def stream_of(spool: str, key: str) -> SpoolStream:
    """Return this process's view of a stream."""
    stream = _streams.get((spool, key))
    if stream is None:
        sync = bool(os.environ.get(SYNC_VARIABLE))
        stream = _streams.setdefault((spool, key), SpoolStream(spool, key, sync=sync))
    return stream


def send_oldest(
    stream: SpoolStream,
    connection: HeldConnection,
    settled: set[str],
    on_answer: Callable[[Answer], object],
    *,
    within_s: float = ANSWER_TIMEOUT_S,
) -> bool:
    """Send the oldest segment of a stream, and drop it once every report in it is acknowledged or refused.

    `settled` keeps the ids of these reports until then, so that the next attempt sends only the others. Return False if
    nothing waits. A receiver that offers no acknowledgements gets each report once.

    Raises:
        BlockingIOError: another process is sending it.
        OSError: a report was not acknowledged; the rest waits in the spool.
    """
    claimed = stream.claim()
    if claimed is None:
        return False
    try:
        for exchange in _exchanges(claimed.lines, settled):
            _send(exchange, connection, settled, on_answer, within_s)
    except BaseException:
        stream.release(claimed)
        raise
    stream.drop(claimed)
    settled.clear()
    return True


def send_until(
    stream: SpoolStream,
    place: Position,
    connection: HeldConnection,
    on_answer: Callable[[Answer], object],
    *,
    within_s: float,
) -> OSError | None:
    """Send what waits in a stream, oldest first, until the report at `place` is gone; return why it is not, or None."""
    deadline = time.monotonic() + within_s
    settled: set[str] = set()
    while stream.holds(place):
        left_s = max(0.0, deadline - time.monotonic())
        try:
            send_oldest(stream, connection, settled, on_answer, within_s=left_s)
        except BlockingIOError:
            if not left_s:
                return OSError(errno.EAGAIN, "another process of the pod is sending")
            time.sleep(BUSY_POLL_S)
        except OSError as error:
            return error
    return None


class _Report(NamedTuple):
    """A line of the spool: the id of its stamp, and the line that asks for an answer, if it can."""

    id: str
    line: bytes
    asking: bytes | None


def _exchanges(lines: Iterable[bytes], settled: set[str]) -> Iterator[list[_Report]]:
    """Yield the reports that are not settled, as many at a time as one exchange takes."""
    waiting = (report for report in map(_report, lines) if report.id not in settled)
    exchange: list[_Report] = []
    size = 0
    for report in waiting:
        exchange.append(report)
        size += len(report.line)
        if len(exchange) == held.MAX_LINES or size > held.MAX_BYTES:
            yield exchange
            exchange, size = [], 0
    if exchange:
        yield exchange


def _report(line: bytes) -> _Report:
    """Read a line; one that this sender did not write goes out as it is, and the receiver keeps it as rejected."""
    try:
        fields = json.loads(line)["params"]
        stamp_id = fields["stamp"]["id"]
        fields["stamp"]["ack"] = True
        if isinstance(stamp_id, str):
            return _Report(stamp_id, line, line_of(fields))
    except (ValueError, TypeError, LookupError, RecursionError, PodledgerError):
        pass
    return _Report(repr(line), line, None)


def _send(
    exchange: list[_Report],
    connection: HeldConnection,
    settled: set[str],
    on_answer: Callable[[Answer], object],
    within_s: float,
) -> None:
    asking = {report.id: report.asking for report in exchange if report.asking is not None}
    plain = [report for report in exchange if report.asking is None]
    if asking:
        answers, error = connection.exchange(asking, within_s=within_s)
        for answer in answers:
            settled.add(answer.id)
            on_answer(answer)
        if error is not None and error.errno != errno.EOPNOTSUPP:
            raise error
        if error is not None:
            plain = exchange
    for report in plain:
        deliver(connection.path, report.line)
        settled.add(report.id)


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - pathlib would take longer to import than the rest


_streams: dict[tuple[str, str], SpoolStream] = {}
os.register_at_fork(after_in_child=_streams.clear)
