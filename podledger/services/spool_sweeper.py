"""The sweeper: it takes the reports that dead or stuck processes left in a spool into the owner's ledger.

Any file in the spool may be hostile. Links are not followed, files of other users are left alone unless they are
allowed, and each line is treated like one from the socket.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Final, NamedTuple, Self

from sqlalchemy import Connection

from podledger.client.spool import KEY, UNNAMED, Claimed, SpoolStream, make_folder
from podledger.core.entries import Draft, Sender, draft
from podledger.core.errors import PodledgerError, ProtocolError, StorageError
from podledger.core.protocol import MAX_FRAME_BYTES, Report, parse_line
from podledger.core.text import escape, pluralize
from podledger.ledger import Ledger
from podledger.store.append import Appended
from podledger.store.log import Rejection
from podledger.store.streams import Streams

MAX_STREAMS: Final = 1_000
"""How many folders one sweep looks at; the next sweep goes on with the others."""

MAX_SEGMENTS: Final = 256
ROUND_BYTES: Final = 4 << 20
"""How many segments one sweep takes in, and about how many bytes of them are in memory at the same time."""

BATCH: Final = 1_000
"""How many lines are committed in one transaction."""

LOCK_WAIT_S: Final = 0.05
"""How long to wait for a process that changes a stream; after that, the next sweep looks again."""

KEEP_EMPTY_S: Final = 86_400.0
"""How long the folder of an idle stream stays. That of a pod that has ended goes at once."""

MAX_ENDED: Final = 10_000
MAX_WARNED: Final = 1_000
KEPT_BYTES: Final = 64 << 10
"""How much is kept of a line that is too long."""

PAUSE_S: Final = 0.1
"""The shortest time between two sweeps."""

_ENDS: Final = ("pod_exited", "pod_reclaimed", "shut_down")
logger = logging.getLogger("podledger.spool")


class Swept(NamedTuple):
    """The result of a sweep: events, lines that are not events, and events that the ledger held already."""

    recorded: int = 0
    rejected: int = 0
    known: int = 0

    def __add__(self, other: object) -> Swept:
        """Return the sum of two sweeps."""
        return Swept(*map(sum, zip(self, other, strict=True))) if isinstance(other, Swept) else NotImplemented

    def __str__(self) -> str:
        """Return the counts in words."""
        text = pluralize(self.recorded, "report")
        text += f", {pluralize(self.rejected, 'line')} rejected" if self.rejected else ""
        return text + (f", {self.known:,} recorded before" if self.known else "")


class _Segment(NamedTuple):
    """A claimed segment, with its stream."""

    key: str
    stream: SpoolStream
    claimed: Claimed


class SpoolSweeper:
    """Sweeps the spool in `directory` for an open ledger: an asynchronous context manager inside the ledger's.

    It sweeps at its start, every `every_s` seconds, and when the ledger learns that a pod has ended. What a process is
    sending at that moment is left to it. `allowed_uids` are other users whose files it takes. It removes a file only
    after the commit, and a report that was recorded before is not appended again.

    Entering the context raises:
        StorageError: the directory cannot be created or read.
    """

    def __init__(
        self,
        ledger: Ledger,
        directory: str | os.PathLike[str],
        *,
        every_s: float = 5.0,
        allowed_uids: frozenset[int] = frozenset(),
    ) -> None:
        self._ledger = ledger
        self._directory = os.fspath(directory)
        self._every_s = every_s
        self._uids = allowed_uids | {os.geteuid()}
        self._names: Iterator[str] = iter(())
        self._ended: dict[str, None] = {}
        self._warned: set[str] = set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._goes_on = False
        self._task: asyncio.Task[None] | None = None
        self._stop_listening: Callable[[], None] | None = None

    async def __aenter__(self) -> Self:
        try:
            make_folder(self._directory)
            os.scandir(self._directory).close()
        except OSError as error:
            reason = f"cannot use the spool {self._directory}: {error.strerror}"
            raise StorageError(reason, hint="name a folder that you may read and write") from error
        self._stopping = False
        self._stop_listening = self._ledger.on_commit(self._committed)
        self._task = asyncio.create_task(self._run(), name="podledger-sweeper")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._wake.set()
        if self._stop_listening is not None:
            self._stop_listening()
        if self._task is not None:  # it ends between two rounds, so that it leaves no segment locked
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> Swept:
        """Take in what lies in the spool now, within the limits of one sweep; return how much that was.

        Raises:
            StorageError: the ledger cannot be read or written; uncommitted lines stay in the spool.
        """
        ended = list(self._ended)
        swept = await self._sweep([*ended, *await asyncio.to_thread(self._next_names)])
        for key in ended:
            self._ended.pop(key, None)
        return swept

    async def _run(self) -> None:
        """Sweep everything now and periodically, and in between the streams of pods that have ended."""
        everything_at = time.monotonic()
        while not self._stopping:
            self._wake.clear()
            try:
                if time.monotonic() >= everything_at:
                    self._log(await self.sweep())
                    everything_at = time.monotonic() + (0 if self._goes_on else self._every_s)
                else:
                    self._log(await self._sweep(list(self._ended)))
            except (PodledgerError, OSError) as error:
                logger.warning("the spool %s is left for later: %s", escape(self._directory), escape(str(error), 300))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(PAUSE_S, everything_at - time.monotonic())):
                    await self._wake.wait()
                    await asyncio.sleep(0 if self._stopping else PAUSE_S)

    async def _sweep(self, keys: Iterable[str]) -> Swept:
        streams = deque(dict.fromkeys(keys))
        swept = Swept()
        taken = 0
        while streams and taken < MAX_SEGMENTS and not self._stopping:
            claimed = await asyncio.to_thread(self._claim_some, streams)
            try:
                swept += await self._record(claimed)
            except BaseException:
                for segment in claimed:
                    segment.stream.release(segment.claimed)
                raise
            await asyncio.to_thread(self._drop, claimed)
            streams.extend(segment.key for segment in claimed)
            taken += len(claimed)
        self._goes_on |= bool(streams)
        return swept

    def _next_names(self) -> list[str]:
        """Return the next streams in the directory's order, which begins again at its end."""
        names = list(islice(self._names, MAX_STREAMS))
        if not names:
            self._names = _streams_in(self._directory)
            names = list(islice(self._names, MAX_STREAMS))
        self._goes_on = len(names) == MAX_STREAMS
        return names

    def _claim_some(self, streams: deque[str]) -> list[_Segment]:
        """Claim the oldest segment of one stream after the other, as much as may be in memory; tidy empty streams."""
        claimed: list[_Segment] = []
        size = 0
        while streams and size < ROUND_BYTES:
            key = streams.popleft()
            stream = SpoolStream(self._directory, key, uids=self._uids, lock_wait_s=LOCK_WAIT_S)
            try:
                segment = stream.claim()
            except (BlockingIOError, TimeoutError):  # a live process is sending it, or a stopped one holds it
                continue
            except OSError as error:
                self._warn(str(error))
                continue
            if segment is None:
                stream.remove(idle_since=None if key in self._ended else time.time() - KEEP_EMPTY_S)
            else:
                claimed.append(_Segment(key, stream, segment))
                size += segment.size
        return claimed

    async def _record(self, claimed: Sequence[_Segment]) -> Swept:
        """Append the lines of claimed segments, except the events that are recorded already."""
        swept = Swept()
        for each in claimed:
            lines = await asyncio.to_thread(_contents, each.claimed, self._ledger.name)
            for start in range(0, len(lines), BATCH):
                batch = lines[start : start + BATCH]
                drafts = [content for content in batch if isinstance(content, Draft)]
                rejections = [content for content in batch if isinstance(content, Rejection)]
                new = await self._ledger.read(partial(_unrecorded, ledger=self._ledger.name, drafts=drafts))
                if new or rejections:
                    await self._ledger.commits.append(new, rejections)
                swept += Swept(len(new), len(rejections), len(drafts) - len(new))
        return swept

    def _drop(self, claimed: Sequence[_Segment]) -> None:
        for segment in claimed:
            try:
                segment.stream.drop(segment.claimed)
            except OSError as error:  # the next sweep finds its events recorded
                self._warn(str(error))
                with suppress(OSError):
                    segment.stream.release(segment.claimed)

    def _committed(self, appended: Appended) -> None:
        ended = [entry.subject for entry in appended.entries if entry.kind in _ENDS]
        if ended and len(self._ended) < MAX_ENDED:
            self._ended |= dict.fromkeys(subject or UNNAMED for subject in ended)
            self._wake.set()

    def _log(self, swept: Swept) -> None:
        if any(swept):
            logger.info("took in from the spool %s: %s", escape(self._directory), swept)

    def _warn(self, text: str) -> None:
        """Log a warning, each text once."""
        if text not in self._warned and len(self._warned) < MAX_WARNED:
            self._warned.add(text)
            logger.warning("left alone: %s", escape(text, 500))


def _streams_in(directory: str) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if KEY.fullmatch(entry.name):
                yield entry.name


def _contents(claimed: Claimed, owner: str) -> list[Draft | Rejection]:
    sender = Sender(None, claimed.uid, claimed.gid)
    return [_content(line[:-1], owner, sender) for line in claimed.lines]


def _content(line: bytes, owner: str, sender: Sender) -> Draft | Rejection:
    """Return the event in a line of the spool, or the line as it is rejected."""
    if len(line) > MAX_FRAME_BYTES:
        return Rejection(line[:KEPT_BYTES], f"longer than {MAX_FRAME_BYTES:,} bytes", sender)
    try:
        message = parse_line(line)
    except ProtocolError as error:
        return Rejection(line, error.message, sender)
    if not isinstance(message, Report):
        return Rejection(line, f"{message.method} is not served from a spool", sender)
    return draft(message.event, owner, payload=message.payload, sender=sender)


def _unrecorded(connection: Connection, ledger: str, drafts: Sequence[Draft]) -> list[Draft]:
    """Return the drafts without those whose emission the log holds."""
    stamps = [each.stamp for each in drafts if each.stamp is not None]
    streams = Streams(connection, ledger, [(stamp.source, stamp.sequence) for stamp in stamps])
    return [
        each
        for each in drafts
        if each.stamp is None or not streams.is_repetition(each.stamp.source, each.stamp.sequence, each.stamp.id)
    ]
