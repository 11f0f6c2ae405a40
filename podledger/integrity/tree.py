"""Verify all ledgers of several databases, and each child's log against what its parents' logs witnessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from podledger.core.errors import SchemaError, StorageError
from podledger.core.problem import Problem
from podledger.core.progress import Progress
from podledger.core.text import escape
from podledger.integrity.scan import UNREADABLE
from podledger.integrity.verify import VerifyResult, damage, verify
from podledger.integrity.witnesses import Copy, Witnesses, compare_witnesses, witness_problems
from podledger.store import log
from podledger.store.connections import read_only
from podledger.store.schema import prepare

NOTHING = Witnesses(0, (), ())


class TreeResult(NamedTuple):
    """The result of `verify_tree`.

    `ledgers` are the results of the ledgers, each with its database. `problems` are the entries that do not fit what
    another ledger witnessed. `compared` counts the relays that were compared. `absent` are the ledgers that relays name
    but no database holds. `ambiguous` are the names that several ledgers have: a relay fits if one of these does.
    """

    ledgers: tuple[tuple[str, VerifyResult], ...]
    problems: tuple[Problem, ...]
    compared: int
    absent: tuple[str, ...]
    ambiguous: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems and all(result.ok for _, result in self.ledgers)

    def as_json(self) -> dict[str, Any]:
        """Return the result as `verify --tree --json` prints it."""
        return {
            "ok": self.ok,
            "ledgers": [{"database": place, **result.as_json()} for place, result in self.ledgers],
            "problems": [problem._asdict() for problem in self.problems],
            "compared": self.compared,
            "absent": list(self.absent),
            "ambiguous": list(self.ambiguous),
        }


def verify_tree(paths: Iterable[Path], progress: Progress | None = None) -> TreeResult:
    """Verify the ledgers of the databases at `paths`, and compare them with each other's relays.

    Raises:
        LedgerNotFoundError: one of the databases does not exist.
    """
    results: list[tuple[str, VerifyResult]] = []
    readable: list[Path] = []
    for path in _distinct(paths):
        try:
            prepare(path, create=False)
            with read_only(path) as connection:
                names = log.ledger_names(connection)
                results += [(str(path), verify(connection, name, progress)) for name in names]
            readable.append(path)
        except SchemaError as error:
            results.append((str(path), VerifyResult("", 0, "", (Problem("schema", None, error.message),))))
        except StorageError as error:
            problems = (Problem("file", None, error.message), *damage(path))
            results.append((str(path), VerifyResult("", 0, "", problems)))
    witnesses, problems = _witnesses(readable)
    known = Counter(result.ledger for _, result in results if result.ledger)
    ambiguous = sorted(name for name, number in known.items() if number > 1)
    return TreeResult(tuple(results), problems, witnesses.compared, witnesses.absent, tuple(ambiguous))


def copies_in(path: Path, stack: ExitStack) -> list[Copy]:
    """Return the ledgers of one database, all from one snapshot, which lasts as long as `stack`.

    Raises:
        StorageError: the database cannot be read.
    """
    connection = stack.enter_context(read_only(path))
    return [Copy(str(path), connection, log.read_head(connection, name)) for name in log.ledger_names(connection)]


def _witnesses(paths: Sequence[Path]) -> tuple[Witnesses, tuple[Problem, ...]]:
    """Compare the ledgers of the databases at `paths`; the children are read after the parents."""
    try:
        with ExitStack() as stack:
            parents = [copy for path in paths for copy in copies_in(path, stack)]
            children = [copy for path in paths for copy in copies_in(path, stack)]
            witnesses = compare_witnesses(parents, children)
    except (StorageError, *UNREADABLE) as error:
        reason = f"the ledgers cannot be compared: {escape(str(error), 200)}"
        return NOTHING, (Problem("witness", None, reason),)
    return witnesses, tuple(witness_problems(witnesses))


def _distinct(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield each file once, also if several paths lead to it."""
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() not in seen:
            seen.add(path.resolve())
            yield path
