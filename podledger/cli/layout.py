"""The layout of tables: pure functions from cells to lines of a given width.

A table that is wider than the terminal wraps its widest columns. A terminal too narrow even for that gets one record
after another, with a line for each column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final

from rich.cells import cell_len, chop_cells

from podledger.cli.terminal import BOLD, STYLES, Screen

GAP: Final = "  "
LEAST: Final = 12
"""How far a column is narrowed, in terminal cells, before a table becomes records."""


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], screen: Screen) -> Iterator[str]:
    """Yield the lines of a table that fits the screen."""
    natural = [max(map(cells, column)) for column in zip(header, *rows, strict=True)]
    if screen.columns is None:
        return _grid(header, rows, natural, screen)
    widths = narrowed(natural, screen.columns - len(GAP) * (len(header) - 1))
    return _records(header, rows, screen) if widths is None else _grid(header, rows, widths, screen)


def narrowed(natural: Sequence[int], room: int) -> list[int] | None:
    """Return widths that fit into `room`, with only the widest columns narrowed; None if they would be too narrow."""
    for cap in range(max(*natural, LEAST), LEAST - 1, -1):
        widths = [min(width, cap) for width in natural]
        if sum(widths) <= room:
            return widths
    return None


def cells(text: str) -> int:
    """Return how many terminal cells a printable text takes."""
    return len(text) if text.isascii() else cell_len(text)


_PIECES: Final = re.compile(r" +|[^ /]+/?|/")


def wrap(text: str, width: int) -> list[str]:
    """Return a text as lines no wider than `width`, broken after spaces and slashes if that is enough."""
    if cells(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    for piece in _PIECES.findall(text):
        if cells(line + piece) <= width:
            line += piece
            continue
        lines.append(line.rstrip())
        *full, line = chop_cells(piece.lstrip(), max(width, 2)) or [""]
        lines += full
    return [part for part in (*lines, line.rstrip()) if part]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], screen: Screen) -> Iterator[str]:
    yield from _row(header, [BOLD] * len(header), widths, screen)
    for row in rows:
        yield from _row(row, [STYLES.get(text, "") for text in row], widths, screen)


def _row(row: Sequence[str], styles: Sequence[str], widths: Sequence[int], screen: Screen) -> Iterator[str]:
    """Yield the lines of one row; a cell that is too long takes several."""
    wrapped = [wrap(text, width) for text, width in zip(row, widths, strict=True)]
    for line in zip_longest(*wrapped, fillvalue=""):
        padded = (
            screen.paint(text, style) + " " * (width - cells(text))
            for text, style, width in zip(line, styles, widths, strict=True)
        )
        yield GAP.join(padded).rstrip()


def _records(header: Sequence[str], rows: Sequence[Sequence[str]], screen: Screen) -> Iterator[str]:
    indent = max(map(cells, header)) + len(GAP)
    room = max((screen.columns or 0) - indent, LEAST)
    for number, row in enumerate(rows):
        if number:
            yield ""
        for name, text in zip(header, row, strict=True):
            label = screen.paint(name, BOLD) + " " * (indent - cells(name))
            for line in wrap(text, room) if text else ():
                yield label + screen.paint(line, STYLES.get(text, ""))
                label = " " * indent
