"""The shim: built with the system's C compiler, preloaded into test processes and controlled there."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest

OPENS, WRITES, SYNCS, TRUNCATES, NAMES = 1, 2, 4, 8, 16
EVERYTHING: Final = OPENS | WRITES | SYNCS | TRUNCATES | NAMES
CHANGES: Final = EVERYTHING & ~OPENS
FAIL, KILL, TEAR = 1, 2, 3
FOREVER: Final = 1 << 40
TIMEOUT_S: Final = 600


@functools.cache
def shim() -> Path:
    """Build the shim and return its path; without a C compiler the test is skipped."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the shim needs Linux and a C compiler")
    library = Path(tempfile.mkdtemp(prefix="podledger-shim-")) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl", "-pthread"], check=True)
    return library


def preloaded(*argv: str | Path | int, env: dict[str, str] | None = None) -> Any:
    """Run `tests.faults.inside` with the shim and these arguments; return its result."""
    command = [sys.executable, "-m", "tests.faults.inside", *(str(argument) for argument in argv)]
    environment = os.environ | {"LD_PRELOAD": str(shim()), "PYTHONPATH": os.pathsep.join(sys.path)} | (env or {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


class Faults:
    """Controls the shim in this process: which calls on the files of one folder fail or kill it."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_disarm.restype = ctypes.c_long
        self._folder = os.fsencode(folder.resolve())

    def arm(self, what: int, at: int, *, times: int = 1, error: int = 0, kinds: int = EVERYTHING) -> None:
        """Let the `at`th call from now on fail, with the `times` - 1 calls after it, or kill this process."""
        self._library.fault_arm(self._folder, what, ctypes.c_long(at), ctypes.c_long(times), error, kinds)

    def count(self, kinds: int = EVERYTHING) -> None:
        """Count calls from now on, without faults."""
        self.arm(FAIL, FOREVER, kinds=kinds)

    def disarm(self) -> int:
        """Stop all faults; return how many calls were counted."""
        return int(self._library.fault_disarm())

    def journal(self, path: Path) -> None:
        """Record every change in a journal from now on."""
        self._library.fault_journal(self._folder, os.fsencode(path))

    def note(self, text: str) -> None:
        """Add an acknowledgement to the journal."""
        self._library.fault_note(text.encode())
