"""Report a run: as text, and as Markdown for the README.

`python -m benchmarks.report` replaces the text between `<!-- bench -->` and `<!-- /bench -->` in the README.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Figures

HERE: Final = Path(__file__).parent
README: Final = HERE.parent / "README.md"
MARKED: Final = re.compile(r"(?s)<!-- bench -->.*?<!-- /bench -->")


def as_text(figures: Figures) -> str:
    """Return the ratios of a run as text, each with its spread and target."""
    run = figures.as_json()
    lines = [f"{'':4}{'':72} {'ratio':>9} {'low':>9} {'high':>9}  target"]
    for ratio in run["ratios"]:
        spread = ratio["spread"]
        lines.append(
            f"{ratio['row']:3} {ratio['title']:72} {_number(spread['median']):>9} {_number(spread['low']):>9} "
            f"{_number(spread['high']):>9}  {_target(ratio)}"
        )
    lines += [f"{name}: {found}" for name, found in run["rivals"].items()]
    return "\n".join(lines)


def as_markdown(run: dict[str, Any]) -> str:
    """Return the ratios of a run as a Markdown table, with the machine."""
    on = run["machine"]
    rivals = ", ".join(f"{name} {found}" for name, found in run["rivals"].items())
    rows = "\n".join(
        f"| {ratio['row']} | {ratio['title']} | {_number(ratio['spread']['median'])} | "
        f"{_number(ratio['spread']['low'])} to {_number(ratio['spread']['high'])} | {_target(ratio)} |"
        for ratio in run["ratios"]
    )
    return (
        f"Ratios within one run of {run['made'][:10]} on {on['cores']} cores ({on['system']}, Python {on['python']}, "
        f"SQLite {on['sqlite']}), compared with {rivals}.\n"
        "Rows 1 to 3 and 8 compare with bare sqlite3 at the same durability, unless they name another library.\n\n"
        "| row | measurement | ratio | spread | target |\n|---|---|---|---|---|\n"
        f"{rows}\n"
    )


def put_into(readme: Path, run: dict[str, Any]) -> bool:
    """Put the figures between the README's markers; return whether it has any."""
    text = readme.read_text() if readme.is_file() else ""
    marked = f"<!-- bench -->\n{as_markdown(run)}<!-- /bench -->"
    if not MARKED.search(text):
        return False
    readme.write_text(MARKED.sub(lambda _: marked, text))
    return True


def _number(value: float) -> str:
    return f"{value:,.0f} ×" if value >= 100 else f"{value:.1f} ×" if value >= 5 else f"{value:.2f}"


def _target(ratio: dict[str, Any]) -> str:
    if ratio["holds"] is None:
        return ""
    bound = "at least" if ratio["at_most"] is None else "at most"
    limit = ratio["at_least"] if ratio["at_most"] is None else ratio["at_most"]
    return f"{bound} {_number(limit)}: {'met' if ratio['holds'] else '**missed**'}"


if __name__ == "__main__":
    if not put_into(README, json.loads((HERE / "results.json").read_text())):
        sys.exit(f"{README} has no <!-- bench --> … <!-- /bench --> markers: nothing was written")
