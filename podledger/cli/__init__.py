"""The command line: arguments → one library call → print.

Only the standard library is imported until a command runs: `--help` and `send` start at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from podledger.cli.parser import build_parser
from podledger.errors import PodledgerError
from podledger.names import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 found wrong or failed, 2 misused.

    Without `argv` the command is this process's, and may set the process's limits.
    """
    try:
        words = sys.argv[1:] if argv is None else argv
        args = build_parser(words).parse_args(words)
        args.alone = argv is None
        return int(args.run(args) or 0)
    except PodledgerError as error:
        hint = f" ({shown(error.hint)})" if error.hint else ""
        print(f"podledger: {shown(error.message)}{hint}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
