"""The picture of a terminal: lines of text with colours, as an SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.text import Text

COLUMNS: Final = 100
"""How wide the terminal in the picture is."""

_FONT_FACE: Final = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def picture(title: str, lines: Iterable[str]) -> str:
    """Return an SVG of a terminal that shows the lines.

    Rich's picture loads a font from a server. This one uses a font that the reader has.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = _FONT_FACE.sub("", console.export_svg(title=title, unique_id="podledger"))
    return svg.replace("Fira Code", "Menlo, Consolas, DejaVu Sans Mono")
