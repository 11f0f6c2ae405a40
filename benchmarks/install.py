"""`python -m benchmarks.install`: install each rival of the dependency group `bench` separately.

A rival that this Python cannot install is not measured, and the run reports it.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main() -> None:
    """Install the rivals; report those that fail."""
    for rival in tomllib.loads(PROJECT.read_text())["dependency-groups"]["bench"]:
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", rival], check=False)
        if done.returncode:
            print(f"{rival} cannot be installed here: it will not be measured", file=sys.stderr)


if __name__ == "__main__":
    main()
