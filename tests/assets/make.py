"""Make the ledger of a schema revision that the tests upgrade: `python -m tests.assets.make 0001`.

Once a revision is released, keep its file and never make it again: it shows what that release really wrote.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from podledger.store.connections import alone
from podledger.store.schema import downgrade_to
from podledger.store.sqlite.files import finalize
from tests.faults.samples import make_sample


def asset(revision: str) -> Path:
    """Return the path of the ledger of a revision."""
    return Path(__file__).with_name(f"ledger-{revision}.db")


def main(revision: str) -> None:
    path = asset(revision)
    path.unlink(missing_ok=True)
    asyncio.run(make_sample(path, rounds=4))
    with alone(path) as connection:
        downgrade_to(connection, revision)
    finalize(path)


if __name__ == "__main__":
    main(sys.argv[1])
