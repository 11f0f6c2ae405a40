"""The shim: built by the system's C compiler, loaded into processes of their own, and given its orders there."""

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
    """The shim's library; the test is skipped where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the shim needs Linux and a C compiler")
    library = Path(tempfile.mkdtemp(prefix="podledger-shim-")) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl", "-pthread"], check=True)
    return library


def preloaded(*argv: str | Path | int, env: dict[str, str] | None = None) -> Any:
    """What `tests.faults.inside` prints when it is run with the shim and these arguments."""
    command = [sys.executable, "-m", "tests.faults.inside", *(str(argument) for argument in argv)]
    environment = os.environ | {"LD_PRELOAD": str(shim()), "PYTHONPATH": os.pathsep.join(sys.path)} | (env or {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


class Faults:
    """Orders to the shim in this process: what befalls the changes to the files in one folder."""

    def __init__(self, folder: Path) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_disarm.restype = ctypes.c_long
        self._folder = os.fsencode(folder.resolve())

    def arm(self, what: int, at: int, *, times: int = 1, error: int = 0, kinds: int = EVERYTHING) -> None:
        """From now on, let the `at`th call (and with `times` those after it) fail, or kill us."""
        self._library.fault_arm(self._folder, what, ctypes.c_long(at), ctypes.c_long(times), error, kinds)

    def count(self, kinds: int = EVERYTHING) -> None:
        """Only count from now on."""
        self.arm(FAIL, FOREVER, kinds=kinds)

    def disarm(self) -> int:
        """Let nothing befall any more; how many calls there were."""
        return int(self._library.fault_disarm())

    def journal(self, path: Path) -> None:
        """Write down every change from now on."""
        self._library.fault_journal(self._folder, os.fsencode(path))

    def note(self, text: str) -> None:
        """Write a word of our own to the journal."""
        self._library.fault_note(text.encode())
