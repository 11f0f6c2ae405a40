"""Run the command line as `python -m podledger`."""

import sys

from podledger.cli import main

sys.exit(main())
