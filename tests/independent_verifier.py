"""An independent verifier, written from `docs/ledger-format.md` without any code of podledger."""

import hashlib
import sqlite3


def check(path: str, ledger: str) -> str:
    """Return the digest at the end of the ledger's chain, or raise ValueError at the first entry that breaks it."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    digest, expected = "0" * 64, 1
    query = "SELECT * FROM events WHERE ledger = ? ORDER BY seq"
    for row in connection.execute(query, (ledger,)):
        *fields, stored = row
        fields[6] = hashlib.sha256(fields[6].encode()).hexdigest()
        lines = [digest, *("" if field is None else str(field) for field in fields)]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        if (fields[1], stored) != (expected, digest):
            raise ValueError(f"the chain breaks at entry {expected}")
        expected += 1
    connection.close()
    return digest
