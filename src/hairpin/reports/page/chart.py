"""Charts as plain data: `charts.js` draws them, and knows nothing about training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hairpin.reports.formats import format_count, format_loss, format_lr, format_norm
from hairpin.reports.held import of_kind
from hairpin.reports.page.markup import details, escape, note, table
from hairpin.reports.page.shell import asset
from hairpin.reports.series import Event, Floats, series

SCRIPTS = ("scales.js", "chart.js", "charts.js")
COLORS = ("blue", "vermillion", "green", "purple", "orange", "sky")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
MARKERS = ("circle", "square", "triangle", "diamond", "wedge")
WRITTEN = {
    "loss": format_loss,
    "lr": format_lr,
    "norm": format_norm,
    "count": format_count,
    "share": "{:.1%}".format,
}
_DIGITS = 5
_HINT = (
    "Drag across a chart to zoom into it, in all of them; double-click to see the whole run again. "
    "The wheel zooms in the chart that was clicked last, or with Ctrl; a finger moves the "
    "crosshair. With the keyboard, on a chart: arrow keys move the crosshair and read values out "
    "(with Shift point by point), Home and End go to the ends, + and − zoom, 0 shows the whole "
    "run, L changes the scale. A name in a legend switches its curve off and on."
)


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        name: its name in the legend.
        x: updates, ascending.
        y: values; None for a gap.
        color: a name in the style sheet.
        look: "line", "thin", "faint" (thin and pale), "planned" (not yet there), "points", "dots"
            (small), or "marked" (a line through points).
        dash: the dash pattern, as in SVG.
        marker: the shape of points.
        run: index of the page's run it belongs to.
    """

    name: str
    x: list[float]
    y: list[float | None]
    color: str = "blue"
    look: str = "line"
    dash: str = ""
    marker: str = "circle"
    run: int = 0


@dataclass(frozen=True)
class Mark:
    """An event at an update."""

    x: float
    kind: str
    words: str


@dataclass(frozen=True)
class Chart:
    """Curves over the updates of a run.

    Args:
        name: id of the element.
        title: the heading.
        unit: of the values.
        kind: how values are formatted: a name in `WRITTEN`.
        lines: the curves; one without points is left out.
        log: starts with a logarithmic scale.
        floor: the lowest value of a linear scale; None: the curves' lowest.
        bands: named ranges of updates: from, to, name.
        rules: values drawn as horizontal lines, with a name.
        marks: events drawn on the chart.
        head, rows: the same values as a table.
        notes: remarks needed to read it.
    """

    name: str
    title: str
    unit: str
    kind: str
    lines: tuple[Line, ...]
    log: bool = False
    floor: float | None = None
    bands: tuple[tuple[float, float, str], ...] = ()
    rules: tuple[tuple[float, str], ...] = ()
    marks: tuple[Mark, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the data for the script."""
        facts = asdict(self)
        for key in ("head", "rows", "notes", "title"):
            del facts[key]
        return facts

    def html(self) -> str:
        """Return the figure that the script draws into, and its table."""
        rows = table(f"{self.title}, as a table", self.head, self.rows) if self.rows else ""
        return (
            f'<figure class="chart" id="{self.name}" data-chart="{self.name}">\n'
            f'<figcaption><h3 id="{self.name}-title">{escape(self.title)}</h3>'
            f"<p>{escape(self.unit)}</p></figcaption>\n"
            f'<div class="plot"><svg aria-hidden="true"></svg></div>\n'
            f"{''.join(map(note, self.notes))}{details('Table', rows) if rows else ''}</figure>"
        )


def line(name: str, xs: Floats, ys: Floats, **style: Any) -> Line:
    """Build a line with values rounded to visible digits."""
    return Line(name, [plain(x) or 0 for x in xs], [plain(y) for y in ys], **style)


def plain(value: float) -> float | None:
    """Round a number to five digits, as an int if it is whole; None: it is not finite."""
    if not np.isfinite(value):
        return None
    short = float(value) if value == int(value) else float(f"{value:.{_DIGITS}g}")
    return int(short) if short == int(short) and abs(short) < 1e15 else short


def clock(events: Sequence[Event], most: int = 400) -> dict[str, Any]:
    """Return tokens and seconds of training after each number of updates, for the other x axes.

    Args:
        events: the valid events of a record.
        most: maximum number of points; the script interpolates between them.
    """
    plan = next(reversed(of_kind(events, "plan")), {})
    updates, tokens_of_each = series(events, "update", "tokens")
    _, rates = series(events, "update", "tokens_per_second")
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


def charts_html(charts: Sequence[Chart], counted: str) -> str:
    """Return the figures, with the choice of the x axis above them."""
    choices = (("updates", "updates"), ("tokens", counted), ("seconds", "training time"))
    radios = "".join(
        f'<label><input type="radio" name="axis" value="{value}"'
        f"{' checked' if value == 'updates' else ''}> {escape(words)}</label>"
        for value, words in choices
    )
    figures = "\n".join(chart.html() for chart in charts)
    return (
        '<noscript><p class="note">The curves need JavaScript; the tables below them do not.</p>'
        "</noscript>\n"
        f'<div class="controls" hidden><fieldset><legend>Along the bottom</legend>{radios}'
        '</fieldset><button type="button" id="whole">Whole run</button></div>\n'
        '<div class="hint" hidden>'
        f"{details('How to look closer', note(_HINT))}</div>\n"
        f'<div class="charts">{figures}</div>\n'
        '<div class="unseen" id="said" aria-live="polite"></div>'
    )


def charts_data(
    charts: Sequence[Chart], clocks: Sequence[dict[str, Any]], runs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the data for the scripts: the charts, and each run's clock, name and style."""
    return {
        "charts": [chart.as_json() for chart in charts],
        "runs": [{**run, "clock": times} for run, times in zip(runs, clocks, strict=True)],
    }


def charts_script() -> str:
    """Return the JavaScript that draws charts."""
    return "".join(map(asset, SCRIPTS))
