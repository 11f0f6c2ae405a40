"""`python -m podledger`: the command line."""

import sys

from podledger.cli import main

sys.exit(main())
