"""`python -m benchmarks.install`: the rivals of the dependency group `bench`, each by itself.

One that cannot be installed on the Python at hand is left out, and the run says so.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main() -> None:
    """Install what can be installed."""
    for rival in tomllib.loads(PROJECT.read_text())["dependency-groups"]["bench"]:
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", rival], check=False)
        if done.returncode:
            print(f"{rival} cannot be installed here: it will not be measured", file=sys.stderr)


if __name__ == "__main__":
    main()
