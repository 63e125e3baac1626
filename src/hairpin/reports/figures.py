"""Drawing of charts as PNG, with the colours and axes that all plots share.

Figures are made without pyplot and its global state, so that any thread may draw. Colours are those
of Okabe and Ito, which people with any colour vision can distinguish.
"""

import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from hairpin.reports.chart import Chart, KeyPoint, Line, Picture, SecondAxis
from hairpin.reports.formats import format_count, format_lr
from hairpin.reports.series import thin
from hairpin.system.files import write_atomically

PALETTE = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "grey": "#666666",
    "black": "black",
}
BLUE, ORANGE, GREY = PALETTE["blue"], PALETTE["orange"], PALETTE["grey"]
_MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle": "^",
    "diamond": "D",
    "wedge": "v",
    "star": "*",
}
_LOOKS: dict[str, dict[str, Any]] = {
    "line": {"lw": 2},
    "thin": {"lw": 0.8},
    "faint": {"lw": 0.7, "alpha": 0.6},
    "marked": {"lw": 1.4},
    "points": {"ls": ""},
    "rings": {"ls": "", "marker": "o", "ms": 12, "mfc": "none", "mec": "black", "mew": 1.2},
}
_DENSE = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0]

# matplotlib prefers a matplotlibrc of the working folder to the user's own; one that came along
# with a user's text could run programs (text.usetex). A user of pyplot in this process has
# chosen it.
if Path(mpl.matplotlib_fname()).absolute().parent == Path.cwd() and (
    "matplotlib.pyplot" not in sys.modules
):
    mpl.rcdefaults()


def draw(chart: Chart) -> Figure:
    """Draw a chart's picture: without the planned curve and the marks, which the page has."""
    picture = chart.picture
    assert picture
    figure, ax = _chart_figure(picture.title, _y_label(chart, picture), picture.x_label)
    done = [line for line in chart.lines if line.look != "planned"]
    for line in done:
        # The points on a single curve name it well enough.
        _draw_line(ax, line, in_legend=len(done) > 1 or not picture.points)
    for point in picture.points:
        _draw_point(ax, point)
    for height, name in chart.rules:
        ax.axhline(height, color="black", lw=1.3, ls="--", zorder=4, label=name)
    if picture.baseline:
        height, name = picture.baseline
        ax.axhline(height, color=GREY, lw=1.2, ls="--", label=name)
    _scale(ax, chart)
    if picture.top:
        _add_top_axis(ax, picture.top)
    if picture.right:
        _add_right_axis(ax, picture.right)
    _finish(ax)
    return figure


def _y_label(chart: Chart, picture: Picture) -> str:
    if not chart.log:
        return picture.y_label
    name, bracket, unit = picture.y_label.partition(" (")
    return f"{name} ({unit[:-1]}, logarithmic)" if bracket else f"{name}, logarithmic"


def base_figure(
    title: str, y_label: str, height: float = 5.6, *, title_pad: float = 20
) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes."""
    figure = Figure(figsize=(10, height), dpi=130, layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    ax.set_title(title, fontsize=14, loc="left", pad=title_pad)
    ax.set_ylabel(y_label, fontsize=12)
    ax.tick_params(labelsize=11)
    ax.grid(color="#DDDDDD", lw=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def _chart_figure(title: str, y_label: str, x_label: str) -> tuple[Figure, Axes]:
    """Make a figure with updates along the bottom."""
    figure, ax = base_figure(title, y_label, title_pad=14)
    ax.set_xlabel(x_label, fontsize=12)
    ax.margins(x=0.02)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda update, _: f"{update:,.0f}"))
    return figure, ax


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; return the path."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    # Readers of the folder see the old picture or the new one, never half.
    write_atomically(path, content.getvalue())
    return path


def _draw_line(ax: Axes, line: Line, *, in_legend: bool) -> None:
    color, label = PALETTE[line.color], line.name if in_legend else None
    if line.look == "dots":
        ax.scatter(line.x, line.y, s=9, color=color, zorder=3, linewidths=0, label=label)
        return
    style = dict(_LOOKS[line.look])
    if line.look in ("marked", "points"):
        style |= {"marker": _MARKERS[line.marker], "ms": 5, "mec": "white", "mew": 0.8}
    if line.dash and "lw" in style:
        # The pattern is in pixels of the page, matplotlib's in widths of the line.
        style["ls"] = (0, tuple(float(part) / style["lw"] for part in line.dash.split()))
    xs, ys = thin(line.x, line.y) if line.look in ("line", "thin", "faint") else (line.x, line.y)
    ax.plot(xs, ys, color=color, **style, label=label)


def _draw_point(ax: Axes, point: KeyPoint) -> None:
    is_star = point.marker == "star"
    ax.plot(
        point.x,
        point.y,
        color=PALETTE[point.color],
        ls="",
        marker=_MARKERS[point.marker],
        ms=17 if is_star else 9,
        mec="black" if is_star else "white",
        mew=0.8,
        clip_on=False,
        zorder=5,
        label=point.name,
    )


def _scale(ax: Axes, chart: Chart) -> None:
    """Scale the y axis: logarithmic, to make late, slow progress visible, or from the floor up."""
    if chart.log:
        ax.set_yscale("log")
        _log_ticks(ax.yaxis, *ax.get_ylim())
    if chart.kind == "share":
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif chart.kind == "lr":
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_lr(value)))
    if chart.floor is not None:
        values = np.concatenate([line.y for line in chart.lines if line.look != "planned"])
        finite = values[np.isfinite(values)]
        highest = 1.02 if chart.kind == "share" else 1.06 * float(finite.max(initial=0.0))
        ax.set_ylim(bottom=chart.floor, top=highest or None)


def _finish(ax: Axes) -> None:
    """Put the legend below the axes, where it hides nothing; without data, a remark instead."""
    if any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in ax.lines):
        assert isinstance(ax.figure, Figure)
        ax.figure.legend(loc="outside lower center", ncols=5, fontsize=11, frameon=False)
    else:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "nothing recorded yet", transform=ax.transAxes, ha="center", color=GREY)


def _add_top_axis(ax: Axes, second: SecondAxis) -> None:
    axis = ax.secondary_xaxis("top", functions=_times(second.factor))
    axis.set_xlabel(second.name, fontsize=11, color=GREY, labelpad=7)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: format_count(tokens)))
    axis.tick_params(labelsize=10, colors=GREY)
    axis.spines["top"].set_color("#BBBBBB")


def _add_right_axis(ax: Axes, second: SecondAxis) -> None:
    axis = ax.secondary_yaxis("right", functions=_times(second.factor))
    axis.set_ylabel(second.name, fontsize=11, color=GREY)
    if ax.get_yscale() == "log":
        _log_ticks(axis.yaxis, *ax.get_ylim())
    axis.tick_params(labelsize=10, colors=GREY)
    axis.spines["right"].set_color("#BBBBBB")


def _log_ticks(axis: Axis, low: float, high: float) -> None:
    """Use plain numbers as ticks of a logarithmic axis; more per decade if there are few decades.

    If all of them are outside, LogLocator chooses evenly spaced ones by itself.
    """
    decades = math.log10(high / low)
    subs = [1.0] if decades > 3 else [1.0, 2.0, 5.0] if decades > 1.2 else _DENSE
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _times(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return functions that multiply and divide by a factor, for a second axis."""
    return lambda values: values * factor, lambda values: values / factor
