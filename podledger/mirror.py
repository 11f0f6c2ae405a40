"""The mirror: the registry as the seed system's `spawned_pods.json`, replaced whole after each change."""

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
    """Replace the file at `path` by the records of `pods`, of a ledger in `database`; its owner alone may read it.

    Raises:
        StorageError: it could not be written; the old one is untouched.
    """
    text = json.dumps([pod.record() for pod in pods], indent=2) + "\n"
    with replacing(path, database) as file:
        file.write(text.encode())


class Mirror:
    """Keeps the mirror of an open ledger; changes that come while it writes are written together.

    `read` gives where the mirror is, None if nowhere, the pods that it is to hold, and the database that has them.
    """

    def __init__(self, read: Callable[[], Awaitable[tuple[str | None, Sequence[Pod], Path]]]) -> None:
        self._read = read
        self._changed = False
        self._task: asyncio.Task[None] | None = None

    def changed(self) -> None:
        """Have the mirror written soon."""
        self._changed = True
        if self._task is None:
            self._task = asyncio.create_task(self._write_while_changed())

    async def write(self) -> None:
        """Write the mirror now, if one is set; a failure is logged."""
        try:
            path, pods, database = await self._read()
            if path:
                await asyncio.to_thread(write_mirror, Path(path), pods, database)
        except PodledgerError as error:
            logger.warning("%s", error.message)

    async def close(self) -> None:
        """Return when the last change is written."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _write_while_changed(self) -> None:
        try:
            while self._changed:
                self._changed = False
                await self.write()
        finally:
            self._task = None
