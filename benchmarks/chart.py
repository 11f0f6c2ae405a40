"""The chart of a run: bars on a logarithmic scale, podledger in one colour and the others in another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.figures import Figures, Spread

WIDTH: Final = 880
LEFT: Final = 300
RIGHT: Final = 110
BAR: Final = 18
GAP: Final = 8
OURS: Final = "#2563eb"
OTHERS: Final = "#94a3b8"
TEXT: Final = "#1e293b"


class Panel(NamedTuple):
    """One group of bars: a title, and per bar the name of its series and its label."""

    title: str
    bars: tuple[tuple[str, str], ...]


PANELS: Final = (
    Panel(
        "Durable appends per second (WAL, synchronous=FULL)",
        (
            ("bare sqlite3, 100 rows a commit", "bare sqlite3, 100 rows per commit"),
            ("podledger, append_many", "podledger, append_many"),
            ("podledger, 200 at once", "podledger, 200 tasks"),
            ("podledger, 50 at once", "podledger, 50 tasks"),
            ("podledger, 1 at a time", "podledger, one at a time"),
            ("eventsourcing, 50 at once", "eventsourcing, 50 threads"),
            ("eventsource-py, 50 at once", "eventsource-py, 50 tasks"),
            ("py-event-sourcing, 50 at once", "py-event-sourcing, 50 tasks"),
        ),
    ),
    Panel(
        "Events per second over the socket, one connection each",
        (
            ("bare asyncio server", "bare asyncio server, discards them"),
            ("podledger, socket", "podledger, commits them"),
        ),
    ),
    Panel(
        "Events of the log read per second",
        (
            ("podledger, rebuild", "podledger, rebuild"),
            ("podledger, verify", "podledger, verify"),
            ("eventsourcing, replay", "eventsourcing, replay"),
            ("eventsource-py, replay", "eventsource-py, replay"),
            ("py-event-sourcing, replay", "py-event-sourcing, replay"),
        ),
    ),
)


def write(figures: Figures, path: Path) -> None:
    """Draw the measured series; omit the others."""
    parts: list[str] = []
    top = 20
    for panel in PANELS:
        known = [(words, name, spread) for name, words in panel.bars if (spread := figures.spread(name))]
        if known:
            top = _draw(parts, panel.title, known, top)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="13">'
    )
    ground = f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>'
    path.write_text("\n".join([head, "<title>podledger benchmarks</title>", ground, *parts, "</svg>"]) + "\n")


def _draw(parts: list[str], title: str, bars: Sequence[tuple[str, str, Spread]], top: int) -> int:
    """Draw one panel; return where the next one begins."""
    low = 10 ** math.floor(math.log10(min(spread.low for *_, spread in bars)))
    high = 10 ** math.ceil(math.log10(max(spread.high for *_, spread in bars)))

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(value / low) / math.log10(high / low)

    bottom = top + 28 + len(bars) * (BAR + GAP)
    parts.append(f'<text x="20" y="{top + 14}" font-weight="bold" fill="{TEXT}">{escape(title)}</text>')
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        at = x(10**power)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + 24}" y2="{bottom}" stroke="#e2e8f0"/>')
        label = f"{10**power:,}"
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle" fill="#64748b" font-size="11">{label}</text>'
        )
    for number, (words, name, spread) in enumerate(bars):
        y = top + 28 + number * (BAR + GAP)
        colour = OURS if name.startswith("podledger") else OTHERS
        middle, end = y + BAR / 2, x(spread.median)
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end" fill="{TEXT}">{escape(words)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{colour}" rx="2"/>',
            f'<line x1="{x(spread.low):.1f}" x2="{x(spread.high):.1f}" y1="{middle}" y2="{middle}" stroke="{TEXT}"/>',
            f'<text x="{x(spread.high) + 6:.1f}" y="{y + 13}" fill="{TEXT}">{spread.median:,.0f}</text>',
        ]
    return bottom + 34
