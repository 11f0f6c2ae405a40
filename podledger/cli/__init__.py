"""The command line: parse the arguments, call the library, print the answer."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from podledger.cli.parser import parse
from podledger.core.errors import PodledgerError
from podledger.core.text import escape


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 found wrong or failed, 2 misused.

    Without `argv`, this process runs nothing else, so the command may change the limits of the process.
    """
    owns_process = argv is None
    if owns_process and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 still gets every line
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        args.owns_process = owns_process
        status = int(args.run(args) or 0)
        sys.stdout.flush()
    except PodledgerError as error:
        hint = f" ({escape(error.hint)})" if error.hint else ""
        print(f"podledger: {escape(error.message)}{hint}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        _discard_output()
        place = error.filename or "the output"
        hint = "free some space" if error.errno == errno.ENOSPC else "check that it exists and that you may use it"
        print(f"podledger: {escape(str(place))}: {error.strerror or error} ({hint})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _discard_output() -> None:
    """Discard the buffer of standard output: it cannot be written, and the interpreter would try again at exit."""
    with suppress(OSError):  # a standard output in memory has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
