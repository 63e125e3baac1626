"""A chart as data: curves, marks and words, but nothing about drawing.

`reports.figures` draws charts as PNG, the page's `charts.js` as SVG, and `reports.schedule_drawing`
a schedule's on a terminal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from hairpin.reports.formats import format_count, format_loss, format_lr, format_norm
from hairpin.reports.series import Floats

COLORS = ("blue", "vermillion", "green", "purple", "orange", "sky")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
MARKERS = ("circle", "square", "triangle", "diamond", "wedge")
FORMATS = {
    "loss": format_loss,
    "lr": format_lr,
    "norm": format_norm,
    "count": format_count,
    "share": "{:.1%}".format,
}


@dataclass(frozen=True)
class Line:
    """One curve.

    Args:
        name: its name in the legend.
        x: updates, ascending.
        y: values; NaN for a gap.
        color: a name in the style sheet.
        look: "line", "thin", "faint" (thin and pale), "planned" (not yet there), "points", "dots"
            (small), "rings" (large and empty), or "marked" (a line through points).
        dash: the dash pattern, as in SVG.
        marker: the shape of points.
        run: index of the page's run it belongs to.
    """

    name: str
    x: Floats
    y: Floats
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
class KeyPoint:
    """A point that a picture emphasises and names in its legend."""

    x: float
    y: float
    name: str
    color: str
    marker: str = "circle"


@dataclass(frozen=True)
class SecondAxis:
    """Another unit for an axis: its name, and what the axis' values are multiplied by."""

    name: str
    factor: float


@dataclass(frozen=True)
class Picture:
    """Additions for a picture, which cannot be zoomed or pointed at.

    Args:
        title: a sentence with the outcome.
        y_label: name and unit of the values.
        x_label: name of the x axis.
        points: the points to emphasise.
        baseline: a height to compare with, and its name.
        top: the x axis in tokens.
        right: the y axis in another unit.
    """

    title: str
    y_label: str
    x_label: str = "update"
    points: tuple[KeyPoint, ...] = ()
    baseline: tuple[float, str] | None = None
    top: SecondAxis | None = None
    right: SecondAxis | None = None


@dataclass(frozen=True)
class Chart:
    """Curves over the updates of a run.

    Args:
        name: id of the element.
        title: the heading.
        unit: of the values.
        kind: how values are formatted: a name in `FORMATS`.
        lines: the curves; one without points is left out.
        log: starts with a logarithmic scale.
        floor: the lowest value of a linear scale; None: the curves' lowest.
        bands: named ranges of updates: from, to, name.
        rules: values drawn as horizontal lines, with a name.
        marks: events drawn on the page's chart.
        head, rows: the same values as a table.
        notes: remarks needed to read it.
        picture: additions for a picture; None: none is made of it.
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
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    picture: Picture | None = None


def style(at: int) -> dict[str, Any]:
    """Return colour, dashes and marker of the curve at index `at`: the first sixty all differ."""
    return {
        "color": COLORS[at % len(COLORS)],
        "dash": DASHES[at % len(DASHES)],
        "marker": MARKERS[at % len(MARKERS)],
    }


def all_positive(*values: Floats) -> bool:
    """Return True if a logarithmic axis has a place for every finite value, and there is one."""
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    return bool(len(finite) and finite.min() > 0)
