"""The results of a benchmark run: ratios, the README's table, the chart."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import chart, report, workload
from benchmarks.figures import Figures


@pytest.fixture
def figures() -> Figures:
    """Return a run in which podledger reaches a third to a half of the rate of bare SQLite."""
    run = Figures(quick=True)
    for ours, bare in ((30.0, 90.0), (50.0, 100.0), (40.0, 100.0)):
        run.add("podledger, append_many", ours)
        run.add("bare sqlite3, 100 rows a commit", bare)
    run.compare(3, "append_many", "podledger, append_many", "bare sqlite3, 100 rows a commit", at_least=0.5)
    return run


def test_ratio_compares_repeat_by_repeat(figures: Figures) -> None:
    (ratio,) = figures.ratios

    assert (ratio.spread.median, ratio.spread.high, ratio.holds) == (0.4, 0.5, False)


def test_unmeasured_series_is_not_compared(figures: Figures) -> None:
    figures.compare(5, "rebuild", "podledger, rebuild", "podledger, append_many")

    assert len(figures.ratios) == 1


def test_figures_replace_the_text_between_the_markers(figures: Figures, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")

    assert report.put_into(readme, figures.as_json())
    assert report.put_into(readme, figures.as_json())

    text = readme.read_text()
    assert text.startswith("before\n<!-- bench -->\n")
    assert text.endswith("<!-- /bench -->\nafter\n")
    assert "| 3 | append_many | 0.40 | 0.33 to 0.50 | at least 0.50: **missed** |" in text
    assert "old" not in text


def test_readme_without_markers_is_unchanged(figures: Figures, tmp_path: Path) -> None:
    assert not report.put_into(tmp_path / "README.md", figures.as_json())


def test_chart_shows_only_measured_series(figures: Figures, tmp_path: Path) -> None:
    chart.write(figures, tmp_path / "chart.svg")

    drawn = ET.parse(tmp_path / "chart.svg").getroot()
    words = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert "podledger, append_many" in words
    assert "podledger, rebuild" not in words


def test_workload_is_reproducible_and_mostly_turns() -> None:
    events = workload.events(2_000)

    assert events == workload.events(2_000)
    assert 0.65 < sum(event.kind == "turn_ended" for event in events) / len(events) < 0.75


def test_readme_shows_the_last_run() -> None:
    """`python -m benchmarks.report` updates the README."""
    run = json.loads((report.HERE / "results.json").read_text())

    assert report.as_markdown(run) in report.README.read_text()
