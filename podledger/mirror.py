"""The mirror: the registry as the seed system's `spawned_pods.json`, replaced whole after each change."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from podledger.errors import PodledgerError
from podledger.files import replacing
from podledger.ledger import Ledger
from podledger.recorder import Recorded
from podledger.registry import Pod

logger = logging.getLogger(__name__)


def write_mirror(path: Path, pods: Sequence[Pod]) -> None:
    """Replace the file at `path` by the records of `pods`; its owner alone may read it.

    Raises:
        StorageError: it could not be written; the old one is untouched.
    """
    text = json.dumps([pod.record() for pod in pods], indent=2) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


class Mirror:
    """Keeps the mirror of an open ledger, if one is set: an asynchronous context manager beside the ledger's.

    Changes that come while it writes are written together; on leaving, the last one is written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._ledger.on_commit(self._committed)
        self._changed.set()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._changed.is_set():
            await self.write()

    async def write(self) -> None:
        """Write the mirror now, if one is set; a failure is logged."""
        self._changed.clear()
        try:
            path = (await self._ledger.head()).mirror
            if path:
                await asyncio.to_thread(write_mirror, Path(path), await self._ledger.pods())
        except PodledgerError as error:
            logger.warning("%s", error.message)

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            await self.write()

    def _committed(self, recorded: Recorded) -> None:
        if recorded.registry_changed:
            self._changed.set()
