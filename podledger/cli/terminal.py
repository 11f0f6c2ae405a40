"""The terminal: its width and colours, and the progress bar."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TextIO

from podledger.core.text import escape

BOLD: Final = "1"
DIM: Final = "2"
GREEN: Final = "32"
_YELLOW: Final = "33"
_CYAN: Final = "36"
_BOLD_RED: Final = "1;31"

STYLES: Final = {
    "applied": GREEN,
    "confirmed": GREEN,
    "revived": _CYAN,
    "conflict": _BOLD_RED,
    "late": _YELLOW,
    "unknown": _YELLOW,
    "duplicate": DIM,
    "ignored": DIM,
    "ok": GREEN,
    "warning": _YELLOW,
    "error": _BOLD_RED,
}
"""The colours of outcomes and of the doctor's levels, as parameters of the ANSI sequence that selects them."""


class Screen(NamedTuple):
    """The screen that text is laid out for: the width in columns, None for any, and whether it shows colours."""

    columns: int | None = None
    colours: bool = False

    def paint(self, text: str, style: str) -> str:
        """Return the text, in the colour `style` if the screen shows colours."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.colours and style and text else text


class SafeTerminal:
    """A terminal as standard output: it shows every control character as an escape, except for our own colours.

    Commands escape what they print where they know what it is. This catches what they miss, such as a kind or a digest
    in a database that somebody else made.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        if not text.isprintable():
            parts = _OWN.split(text)
            parts[::2] = [escape(part, kept="\n") for part in parts[::2]]
            self._stream.write("".join(parts))
        else:
            self._stream.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_OWN: Final = re.compile(rf"(\x1b\[(?:0|{'|'.join({BOLD, *STYLES.values()})})m)")
"""The sequences that `Screen.paint` writes."""


def screen() -> Screen:
    """Return the screen that standard output writes to."""
    if not sys.stdout.isatty():
        return Screen()
    coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Screen(shutil.get_terminal_size().columns, coloured)


@contextmanager
def progress(what: str, *, prints: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on standard error, if that is a terminal; yield the function that updates it, or None.

    `prints` says that the work also prints to standard output. If both are the terminal, the lines show the
    progress, and there is no bar that would mix with them.
    """
    if not sys.stderr.isatty() or (prints and sys.stdout.isatty()):
        yield None
        return
    from rich.console import Console  # a terminal alone needs it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)
