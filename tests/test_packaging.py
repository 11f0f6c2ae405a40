"""The wheel, built from the source distribution: it contains the migrations and works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the contents of the wheel, as in site-packages."""
    built = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    [wheel] = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def test_wheel_contains_migrations_and_type_marker(installed: Path) -> None:
    assert (installed / "podledger" / "py.typed").exists()
    assert sorted((installed / "podledger" / "migrations").rglob("*.py")) != []
    assert not (installed / "tests").exists()


def test_installed_package_works_from_any_folder(installed: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}
    for words in (["init", "root"], ["spawned", "a", "--socket", "/s"], ["verify"]):
        command = [sys.executable, "-m", "podledger", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "verified: 1 event," in done.stdout
