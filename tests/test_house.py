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
PACKAGES = ("store", "audit", "proof", "carrying", "health", "receiving", "sending")
"""The packages, each with nothing of its own but its name."""

ORDER = (
    # What stands alone, and what travels; the package itself loads what is asked for
    *("", *PACKAGES, "errors", "receiving.framing", "paths", "stamps", "names", "strictjson", "protocol"),
    # What is recorded, and what the rules make of it
    *("events", "rules"),
    # Where it is kept
    *(
        "store.driver",
        "store.tables",
        "store.connections",
        "store.schema",
        "store.files",
        "store.database",
        "store.log",
        "store.effects",
        "store.projections",
        "store.recorder",
        "store.refold",
        "store.standing",
    ),
    # What is asked, and what is proved
    *(
        "registry",
        "notifications",
        "audit.gaps",
        "proof.survey",
        "carrying.slices",
        "proof.notes",
        "carrying.bundle",
        "carrying.bundle_check",
        "proof.verify",
    ),
    *(
        "carrying.agreement",
        "carrying.collect",
        "carrying.backup",
        "proof.signing",
        "audit.explain",
        "audit.difference",
        "audit.replay",
        "audit.query",
    ),
    # The front door, and what stands before it
    *(
        "mirror",
        "store.commits",
        "ledger",
        "carrying.transfer",
        "health.salvage",
        "health.host",
        "health.finding",
        "health.condition",
        "health.surroundings",
        "health.doctor",
    ),
    # The socket side
    *(
        "sending.delivery",
        "sending.couriers",
        "sender",
        "outbox",
        "reconcile",
        "receiving.limits",
        "settings",
        "receiving.socketfile",
    ),
    *(
        "receiving.connection",
        "receiving.committer",
        "receiving.door",
        "receiving.intake",
        "receiving.answers",
        "receiver",
    ),
    # The command line
    *("cli.parser", "cli.output", "cli.session", "cli.facts", "cli.reading", "cli.sending", "cli.serving"),
    *(
        "cli.auditing",
        "cli.querying",
        "cli.upkeep",
        "cli.proving",
        "cli.carrying",
        "demo_report",
        "demo",
        "cli",
        "__main__",
    ),
)
"""Every module, in the order in which data goes through them; each may import those before it."""

LAZY = {("cli.upkeep", "demo")}
"""What is imported against the order, inside a function, with its reason: `podledger demo` is a command of `upkeep`."""

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


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == set(ORDER), "put a new module where it belongs in ORDER"


@pytest.mark.parametrize("module", [name for name in ORDER if name in MODULES])
def test_no_module_imports_upwards(module: str) -> None:
    before = ORDER[: ORDER.index(module)]
    assert [name for name in imported(MODULES[module]) if name not in before and (module, name) not in LAZY] == []


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("errors", set()),
        ("paths", set()),
        ("stamps", set()),
        ("store.tables", set()),
        ("names", {"errors"}),
        ("strictjson", {"errors"}),
        ("rules", {"errors", "events"}),
        ("store.driver", set()),
        ("store.connections", {"errors", "store.driver"}),
        ("store.schema", {"errors", "store.connections"}),
        ("store.database", {"errors", "store.connections", "store.schema"}),
        ("events", {"errors", "names", "protocol", "strictjson"}),
    ],
)
def test_the_core_knows_no_more_than_it_must(module: str, allowed: set[str]) -> None:
    assert set(imported(MODULES[module])) <= allowed


def test_only_the_database_side_knows_sqlalchemy() -> None:
    """The rules, the wire and the command line do not."""
    knowing = {name for name, path in MODULES.items() if "from sqlalchemy" in path.read_text()}
    core = ORDER[ORDER.index("store.driver") : ORDER.index("carrying.transfer")]
    assert knowing <= {*core, "health.salvage", "health.condition", "health.doctor", "reconcile", "demo_report"}


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh interpreter loads for some code."""
    show = f"{code}\nimport sys, json\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["podledger", "podledger.stamps", "podledger.sender", "podledger.cli.parser"])
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


def test_what_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        podledger.nothing  # noqa: B018 - looked up for its failure


def test_every_module_says_what_it_holds() -> None:
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{name} has no docstring"
