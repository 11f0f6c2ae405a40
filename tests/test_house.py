"""The structure of the package: import layers, light imports, public names."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import podledger

PACKAGE = Path(podledger.__file__).parent
LAYERS: tuple[tuple[str, ...], ...] = (
    ("core",),
    ("host",),
    ("client", "store"),
    ("queries",),
    ("bundle",),
    ("integrity",),
    ("mirror",),
    ("ledger",),
    ("server", "services", "archive"),
    ("doctor", "settings"),
    ("demo",),
    ("cli",),
    ("__main__",),
)
"""The packages and top-level modules, lowest first. Each imports only from itself and from the layers below it."""

HEAVY = ("sqlalchemy", "aiosqlite", "alembic", "pydantic", "asyncio")


SOURCES = [path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts]


def package_of(path: Path) -> str:
    """Return the package or top-level module that a source file belongs to; the root itself is ""."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported_packages(path: Path) -> Iterator[str]:
    """Yield the packages of podledger that a source file imports at run time."""
    for node in running(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "podledger":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("podledger."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("podledger."))


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module, except those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from running(node)


def test_every_package_belongs_to_a_layer() -> None:
    declared = {name for layer in LAYERS for name in layer}
    assert {package_of(path) for path in SOURCES} - {""} == declared, "add a new package to LAYERS"


@pytest.mark.parametrize("level", range(len(LAYERS)), ids=[" ".join(layer) for layer in LAYERS])
def test_layer_imports_only_from_layers_below(level: int) -> None:
    below = {name for layer in LAYERS[:level] for name in layer}
    for path in SOURCES:
        own = package_of(path)
        if own in LAYERS[level]:
            assert set(imported_packages(path)) - below - {own} == set(), path


def test_architecture_page_lists_the_layers_in_order() -> None:
    rows = re.findall(
        r"^\| ((?:`[a-z]+`(?:, )?)+) \|", (PACKAGE.parent / "docs" / "architecture.md").read_text(), re.MULTILINE
    )
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert [name for name in listed if name != "__main__"] == [
        name for layer in LAYERS for name in layer if name != "__main__"
    ]


def test_architecture_page_lists_every_module() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    listing = re.findall(r"^```text\n(podledger/.*?)```", page, re.DOTALL | re.MULTILINE)[0]
    listed: dict[str, list[str]] = {}
    for word in listing.split():
        if word.endswith("/"):
            modules = listed[word] = []
        else:
            modules.append(word)
    real: dict[str, list[str]] = {}
    for path in sorted(path for path in SOURCES if not path.stem.startswith("__")):
        real.setdefault(f"{path.parent.relative_to(PACKAGE.parent)}/", []).append(path.stem)
    assert listed == real


@pytest.mark.parametrize("package", ["core", "client"])
def test_sqlalchemy_is_not_imported_by(package: str) -> None:
    for path in SOURCES:
        if package_of(path) == package:
            assert "sqlalchemy" not in path.read_text(), path


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter loads to run `code`."""
    script = f"{code}\nimport sys, json\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module", ["podledger", "podledger.core.stamps", "podledger.client.sender", "podledger.cli.parser"]
)
def test_module_loads_no_heavy_package(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


def test_listing_names_loads_no_heavy_package() -> None:
    assert loaded_by("import podledger; dir(podledger); podledger.__version__; podledger.PodledgerError") == set()


def test_event_models_need_only_pydantic() -> None:
    assert loaded_by("from podledger import TurnEnded, PodSpawned, render; TurnEnded(pod_name='p')") <= {"pydantic"}


def test_opening_a_current_ledger_needs_no_alembic(tmp_path: Path) -> None:
    code = (
        "import asyncio\nfrom podledger import Ledger\nasync def main():\n"
        f"    async with Ledger.open({str(tmp_path / 'l.db')!r}, 'root'): pass\nasyncio.run(main())"
    )
    assert "alembic" in loaded_by(code), "creating it runs the migrations"
    assert "alembic" not in loaded_by(code)


def test_public_names_are_documented_and_sorted() -> None:
    for name in podledger.__all__:
        value = getattr(podledger, name)
        assert getattr(value, "__doc__", None), f"{name} has no docstring"
        assert value.__module__.startswith("podledger.")
    assert list(podledger.__all__) == sorted(podledger.__all__)
    assert set(podledger.__all__) <= set(dir(podledger))


def test_type_checkers_see_the_public_names() -> None:
    """The package imports them for type checkers alone: at run time each is loaded when it is first used."""
    tree = ast.parse(Path(podledger.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname: f"{node.module}" for node in imports for alias in node.names}
    assert homes == {name: f"podledger.{home}" for name, home in podledger._HOMES.items()}


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        podledger.nothing  # type: ignore[attr-defined]  # noqa: B018 - looked up for its failure


def test_every_module_has_a_docstring() -> None:
    assert [path for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))] == []
