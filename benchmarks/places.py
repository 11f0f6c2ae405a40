"""A temporary folder for the files of a run."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class Places:
    """A folder for the databases and sockets of a run, removed at the end."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="podledger-bench-"))
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder)

    def fresh(self, suffix: str = "db") -> Path:
        """Return an unused path."""
        return self.folder / f"{next(self._numbers)}.{suffix}"

    @staticmethod
    def size(path: Path) -> int:
        """Return the bytes of a database, with its WAL and shared memory file."""
        return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))
