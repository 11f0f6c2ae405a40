"""Where the files of a run are: one folder, removed at its end."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self


class Places:
    """A folder for the databases and sockets of a run."""

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
        """A path where nothing is."""
        return self.folder / f"{next(self._numbers)}.{suffix}"

    @staticmethod
    def size(path: Path) -> int:
        """How many bytes a database takes, with the files beside it."""
        return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))
