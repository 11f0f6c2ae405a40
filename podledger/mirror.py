"""The mirror: a JSON file with the open pods, replaced as a whole after each change of the registry.

Its records are those of the original runtime's `spawned_pods.json`, which `docs/protocol.md` describes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from podledger.core.errors import PodledgerError
from podledger.queries.registry import Pod
from podledger.store.files import replacing

logger = logging.getLogger(__name__)


def write_mirror(path: Path, pods: Sequence[Pod], database: Path) -> None:
    """Replace the file at `path` with the records of `pods`; only its owner may read it.

    Raises:
        StorageError: it cannot be written, or is part of `database`; the old file is unchanged.
    """
    text = json.dumps([pod.record() for pod in pods], indent=2) + "\n"
    with replacing(path, database) as file:
        file.write(text.encode())


class Mirror:
    """Keeps the mirror of an open ledger up to date. Changes that arrive during a write are written together.

    `read` returns the path of the mirror (None: there is none), the open pods, and the path of the database.
    """

    def __init__(self, read: Callable[[], Awaitable[tuple[str | None, Sequence[Pod], Path]]]) -> None:
        self._read = read
        self._changed = False
        self._task: asyncio.Task[None] | None = None

    def changed(self) -> None:
        """Schedule a write of the mirror."""
        self._changed = True
        if self._task is None:
            self._task = asyncio.create_task(self._write_while_changed())

    async def write(self) -> None:
        """Write the mirror now, if there is one; log a failure."""
        try:
            path, pods, database = await self._read()
            if path:
                await asyncio.to_thread(write_mirror, Path(path), pods, database)
        except PodledgerError as error:
            logger.warning("%s", error.message)

    async def close(self) -> None:
        """Wait until the last change is written."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _write_while_changed(self) -> None:
        try:
            while self._changed:
                self._changed = False
                await self.write()
        finally:
            self._task = None
