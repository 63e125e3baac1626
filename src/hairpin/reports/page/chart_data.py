"""Charts for the page: their data for `charts.js`, which draws them, and their tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hairpin.reports.chart import Chart, Line
from hairpin.reports.history import of_kind
from hairpin.reports.page.markup import Table
from hairpin.reports.page.shell import asset
from hairpin.reports.series import Event, Floats, series, thin, values_of

SCRIPTS = ("scales.js", "chart.js", "charts.js")
# Points by a curve's look; those of updates remain distinguishable after zooming in.
COLUMNS = {"faint": 3000, "thin": 3000, "line": 500}
_DIGITS = 5
_IN_PAGE = ("name", "unit", "kind", "lines", "log", "floor", "bands", "rules", "marks")


@dataclass(frozen=True)
class Figure:
    """A chart as the page has it: the words around it, and the data that it is drawn from.

    Args:
        name: id of the element.
        title: the heading.
        unit: of the values.
        notes: remarks needed to read it.
        table: the same values as a table; None: there are none.
        data: for `charts.js`.
    """

    name: str
    title: str
    unit: str
    notes: Sequence[str]
    table: Table | None
    data: dict[str, Any]


def figure_of(chart: Chart, columns: Mapping[str, int] = COLUMNS) -> Figure:
    """Return a chart as the page has it, its lines thinned to `columns` by their look."""
    table = Table(f"{chart.title}, as a table", chart.head, chart.rows) if chart.rows else None
    notes = [*chart.notes, *_thinned(chart)]
    data = _chart_data(chart, columns)
    return Figure(chart.name, chart.title, chart.unit, notes, table, data)


def charts_data(
    figures: Sequence[Figure],
    clocks: Sequence[dict[str, Any]],
    runs: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the data for the scripts: the charts, and each run's clock, name and style."""
    return {
        "charts": [figure.data for figure in figures],
        "runs": [{**run, "clock": times} for run, times in zip(runs, clocks, strict=True)],
    }


def charts_script() -> str:
    """Return the JavaScript that draws charts."""
    return "".join(map(asset, SCRIPTS))


def clock(events: Sequence[Event], most: int = 400) -> dict[str, Any]:
    """Return tokens and seconds of training after each number of updates, for the other x axes.

    Args:
        events: the valid events of a record.
        most: maximum number of points; the script interpolates between them.
    """
    plan = next(reversed(of_kind(events, "plan")), {})
    updates, tokens_of_each = series(events, "update", "tokens")
    rates = values_of(events, "update", "tokens_per_second")
    x = np.concatenate([[0.0], updates + 1])
    counts = np.concatenate([[0.0], tokens_of_each])
    spent = counts / np.concatenate([[np.nan], np.where(rates == 0, np.nan, rates)])
    tokens, seconds = np.cumsum(counts), np.cumsum(np.nan_to_num(spent))
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), most)).astype(np.int64))
    planned = max(1, plan.get("updates") or 1)
    done = max(1.0, x[-1])
    any_done = len(updates) > 0
    return {
        "x": [plain(v) for v in x[kept]],
        "tokens": [plain(v) for v in tokens[kept]],
        "seconds": [plain(v) for v in seconds[kept]],
        # For the planned updates that are not done yet.
        "tokens_each": plain(tokens[-1] / done if any_done else plan.get("tokens_per_update") or 0),
        "seconds_each": plain(seconds[-1] / done if any_done else plan.get("seconds", 0) / planned),
    }


def plain(value: float) -> float | None:
    """Round a number to five digits, as an int if it is whole; None: it is not finite."""
    if not np.isfinite(value):
        return None
    short = float(value) if value == int(value) else float(f"{value:.{_DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def _chart_data(chart: Chart, columns: Mapping[str, int]) -> dict[str, Any]:
    facts: dict[str, Any] = {key: getattr(chart, key) for key in _IN_PAGE}
    facts["lines"] = [_line_data(line, columns) for line in chart.lines]
    facts["marks"] = [asdict(mark) for mark in chart.marks]
    return facts


def _line_data(line: Line, columns: Mapping[str, int]) -> dict[str, Any]:
    """Return a line with its values rounded to visible digits, and fewer of them if its look is in
    `columns`.
    """
    xs, ys = _thin(line, columns)
    facts = {key: value for key, value in vars(line).items() if key not in ("x", "y")}
    points = {"x": [plain(x) or 0 for x in xs], "y": [plain(y) for y in ys]}
    return {"name": facts.pop("name"), **points, **facts}


def _thin(line: Line, columns: Mapping[str, int]) -> tuple[Floats, Floats]:
    most = columns.get(line.look)
    return thin(line.x, line.y, most) if most else (line.x, line.y)


def _thinned(chart: Chart) -> list[str]:
    """Tell how far the curves of all updates are thinned."""
    longest = max((len(line.x) / COLUMNS["faint"] for line in chart.lines), default=0)
    if longest <= 2 or not any(line.look in ("faint", "thin") for line in chart.lines):
        return []
    return [f"Of every {longest:.0f} updates the lowest and the highest value are drawn."]
