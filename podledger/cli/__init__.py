"""The command line: arguments → one library call → print.

Only the standard library is imported until a command runs: `--help` and `send` start at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from podledger.cli.parser import build_parser
from podledger.core.errors import PodledgerError
from podledger.core.text import escape


def _mute() -> None:
    """Let what is still to be printed go nowhere: it could not be written."""
    with suppress(OSError):  # it has no descriptor where it was replaced by one in memory
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 found wrong or failed, 2 misused.

    Without `argv` the command is this process's, and may set the process's limits.
    """
    try:
        words = sys.argv[1:] if argv is None else argv
        args = build_parser(words).parse_args(words)
        args.alone = argv is None
        status = int(args.run(args) or 0)
        sys.stdout.flush()
    except PodledgerError as error:
        hint = f" ({escape(error.hint)})" if error.hint else ""
        print(f"podledger: {escape(error.message)}{hint}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        _mute()
        return 1
    except OSError as error:
        _mute()
        print(f"podledger: {escape(str(error.filename or 'the output'))}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status
