"""Seeds of random tests, and the type of the fixture that counts what they tried."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

Count = Callable[[str, object], None]
"""The type of the fixture `record_property`; the totals are printed at the end of a run."""

SEED = int(os.environ.setdefault("PODLEDGER_SEED", str(random.SystemRandom().randrange(1, 1 << 32))))
"""The first seed of random tests. It is printed; set PODLEDGER_SEED to repeat a run.

It is kept in the environment, so that all processes of one run share it.
"""


def seeds(count: int) -> list[int]:
    """Return the seeds of `count` rounds, from PODLEDGER_SEED on."""
    return [SEED + number for number in range(count)]
