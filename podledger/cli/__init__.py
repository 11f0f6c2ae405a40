"""The command line: parse the arguments, call the library, print the answer."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from podledger.cli.parser import parse
from podledger.core.errors import PodledgerError, UsageError
from podledger.core.text import escape


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 found wrong or failed, 2 misused.

    Without `argv`, this process runs nothing else, so the command may change the limits of the process.
    """
    owns_process = argv is None
    if owns_process:
        _open_missing_streams()
        _prepare_output()
    try:
        status = _run(sys.argv[1:] if argv is None else argv, owns_process=owns_process)
        sys.stdout.flush()
    except PodledgerError as error:
        hint = f" ({escape(error.hint)})" if error.hint else ""
        print(f"podledger: {escape(error.message)}{hint}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        return _output_failed(error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if owns_process and not sys.flags.dev_mode:
            return _unexpected(error)
        raise
    return status


def _output_failed(error: OSError) -> int:
    """Report a file that failed, unless it is a pipe that nobody reads any more."""
    _discard_output()
    if not isinstance(error, BrokenPipeError):
        place = error.filename or "the output"
        hint = "free some space" if error.errno == errno.ENOSPC else "check that it exists and that you may use it"
        print(f"podledger: {escape(str(place))}: {error.strerror or error} ({hint})", file=sys.stderr)
    return 1


def _unexpected(error: Exception) -> int:
    """Report an error that no code expected, in one line like every other."""
    hint = "run `podledger doctor`; if it finds nothing, report this with the output of `python -X dev -m podledger`"
    print(f"podledger: unexpected {escape(repr(error), 300)} ({hint})", file=sys.stderr)
    return 1


def _run(words: Sequence[str], *, owns_process: bool) -> int:
    """Run the command of a command line; return its status."""
    try:
        args = parse(words)
        args.owns_process = owns_process
        return int(args.run(args) or 0)
    except UnicodeEncodeError as error:
        hint = "give text; only a path may hold other bytes"
        raise UsageError("an argument is not UTF-8", hint=hint) from error


def _prepare_output() -> None:
    """Let standard output take every line, also a terminal that is not UTF-8, and let no line control a terminal."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stdout.isatty():
        from podledger.cli.terminal import SafeTerminal

        sys.stdout = SafeTerminal(sys.stdout)


def _open_missing_streams() -> None:
    """Open the standard streams that were closed, so that no database gets their numbers.

    Writing to a closed standard output fails. Writing to a closed standard error has no effect.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            flags = os.O_WRONLY if number == 2 else os.O_RDONLY
            os.dup2(os.open(os.devnull, flags), number)
            setattr(sys, name, open(number, mode, errors="backslashreplace"))  # noqa: SIM115, PTH123 - stays open


def _discard_output() -> None:
    """Discard the buffer of standard output: it cannot be written, and the interpreter would try again at exit."""
    with suppress(OSError):  # a standard output in memory has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
