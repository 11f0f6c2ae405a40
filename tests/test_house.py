"""The house: which module may import which, what stays light, and what is public."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import podledger

PACKAGE = Path(podledger.__file__).parent
LAYERS: tuple[tuple[str, ...], ...] = (
    ("core",),
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


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts}


def imported(path: Path) -> Iterator[str]:
    """The modules of podledger that a module imports when it runs: what only types need is left out."""
    for node in running(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "podledger":
            yield from (alias.name if alias.name in MODULES else "" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("podledger."):
            module = node.module.removeprefix("podledger.")
            inside = [f"{module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else module for name in inside)
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("podledger.") for alias in node.names if "podledger." in alias.name)


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module but for those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            yield from running(node)


def package_of(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_belongs_to_a_layer() -> None:
    declared = {name for layer in LAYERS for name in layer}
    assert {package_of(name) for name in MODULES if name} == declared, "add a new package to LAYERS"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name))
def test_module_imports_only_from_layers_below(module: str) -> None:
    own = package_of(module)
    level = next(number for number, layer in enumerate(LAYERS) if own in layer)
    below = {"", own, *(name for layer in LAYERS[:level] for name in layer)}
    above = {name for name in imported(MODULES[module]) if package_of(name) not in below}
    assert above == set()


@pytest.mark.parametrize("package", ["core", "client", "cli.parser"])
def test_sqlalchemy_stays_out_of(package: str) -> None:
    for name, path in MODULES.items():
        if name == package or name.startswith(f"{package}."):
            assert "sqlalchemy" not in path.read_text(), name


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter loads for some code."""
    show = f"{code}\nimport sys, json\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module", ["podledger", "podledger.core.stamps", "podledger.client.sender", "podledger.cli.parser"]
)
def test_it_is_light(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


def test_looking_around_is_light() -> None:
    assert loaded_by("import podledger; dir(podledger); podledger.__version__; podledger.PodledgerError") == set()


def test_a_model_of_the_wire_needs_no_database() -> None:
    assert loaded_by("from podledger import TurnEnded, PodSpawned, render; TurnEnded(pod_name='p')") <= {"pydantic"}


def test_opening_a_ledger_of_today_s_schema_needs_no_alembic(tmp_path: Path) -> None:
    code = (
        "import asyncio\nfrom podledger import Ledger\nasync def main():\n"
        f"    async with Ledger.open({str(tmp_path / 'l.db')!r}, 'root'): pass\nasyncio.run(main())"
    )
    assert "alembic" in loaded_by(code), "the first time it is made"
    assert "alembic" not in loaded_by(code)


def test_all_is_what_is_public() -> None:
    for name in podledger.__all__:
        value = getattr(podledger, name)
        assert getattr(value, "__doc__", None), f"{name} says nothing of itself"
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


def test_what_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        podledger.nothing  # type: ignore[attr-defined]  # noqa: B018 - looked up for its failure


def test_every_module_says_what_it_holds() -> None:
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{name} has no docstring"
