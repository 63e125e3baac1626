"""Colours and axes that all plots share.

Figures are made without pyplot and its global state, so that any thread may draw. Colours are those
of Okabe and Ito, which people with any colour vision can distinguish.
"""

import io
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hairpin.reports.formats import format_count, format_lr
from hairpin.reports.held import others
from hairpin.reports.series import Event, Floats, series
from hairpin.system.files import write_atomically

BLUE, SKY, ORANGE, VERMILLION, GREY = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#666666"
_DENSE = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0]

# matplotlib prefers a matplotlibrc of the working folder to the user's own; one that came along
# with somebody's text could have programs run (text.usetex). A user of pyplot in this process has
# chosen it.
if Path(mpl.matplotlib_fname()).absolute().parent == Path.cwd() and (
    "matplotlib.pyplot" not in sys.modules
):
    mpl.rcdefaults()


def new_figure(title: str, y_label: str) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes, updates along the bottom."""
    figure = Figure(figsize=(10, 5.6), dpi=130, layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    ax.set_title(title, fontsize=14, loc="left", pad=14)
    ax.set_ylabel(y_label, fontsize=12)
    ax.set_xlabel("update", fontsize=12)
    ax.tick_params(labelsize=11)
    ax.grid(color="#DDDDDD", lw=0.7)
    ax.margins(x=0.02)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda update, _: f"{update:,.0f}"))
    return figure, ax


def finish(ax: Axes) -> None:
    """Put the legend below the axes, where it hides nothing; without data, a remark instead."""
    if any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in ax.lines):
        assert isinstance(ax.figure, Figure)
        ax.figure.legend(loc="outside lower center", ncols=5, fontsize=11, frameon=False)
    else:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "nothing recorded yet", transform=ax.transAxes, ha="center", color=GREY)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; return the path."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    # Readers of the folder see the old picture or the new one, never half.
    write_atomically(path, content.getvalue())
    return path


def add_tokens_axis(ax: Axes, events: Sequence[Event]) -> None:
    """Add an axis along the top with tokens, if the record has their number per update; for a
    classifier, with one target per example, examples.
    """
    _, tokens = series(events, "update", "tokens")
    if not tokens.sum() > 0:
        return
    each = float(tokens.mean())
    axis = ax.secondary_xaxis("top", functions=(times(each), times(1 / each)))
    name = "examples" if any(event.get("labels") for event in others(events)) else "tokens"
    axis.set_xlabel(name, fontsize=11, color=GREY, labelpad=7)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: format_count(tokens)))
    axis.tick_params(labelsize=10, colors=GREY)
    axis.spines["top"].set_color("#BBBBBB")


def scale_loss(ax: Axes, *losses: Floats) -> None:
    """Use a logarithmic axis if all losses are above 0, to make late, slow progress visible."""
    finite = np.concatenate(losses)
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0:
        ax.set_yscale("log")
        ax.set_ylabel(ax.get_ylabel().replace(")", ", logarithmic)"), fontsize=12)
        log_ticks(ax.yaxis, *ax.get_ylim())


def mark_lr(ax: Axes, updates: Floats, lr: Floats, last_name: str = "last") -> None:
    """Mark the first update, the peak and the last update with dots and their values."""
    peak, last = int(np.nanargmax(lr)), len(lr) - 1
    marks = {0: ("first", GREY), last: (last_name, VERMILLION)}
    marks[peak] = ("end of warmup, peak" if 0 < peak < last else "peak", ORANGE)
    for index, (name, color) in sorted(marks.items()):
        words = f"{name}: {format_lr(lr[index])} at update {updates[index]:,.0f}"
        ax.plot(updates[index], lr[index], **dot(color), label=words)
    ax.set_ylim(bottom=0, top=1.06 * float(np.nanmax(lr)) or None)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_lr(value)))


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Use plain numbers as ticks of a logarithmic axis; more per decade if there are few decades.

    If all of them are outside, LogLocator chooses evenly spaced ones by itself.
    """
    decades = math.log10(high / low)
    subs = [1.0] if decades > 3 else [1.0, 2.0, 5.0] if decades > 1.2 else _DENSE
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def marks(color: str, marker: str) -> dict[str, Any]:
    """Return the style of points joined by a line."""
    return {"color": color, "marker": marker, "ms": 5, "mec": "white", "mew": 0.8}


def dot(color: str) -> dict[str, Any]:
    """Return the style of a single important point."""
    style = {"ls": "", "marker": "o", "ms": 9, "mec": "white", "color": color}
    return style | {"mew": 0.8, "clip_on": False, "zorder": 5}


def times(factor: float) -> Callable[[Any], Any]:
    """Return a function that multiplies by a factor, for a second axis."""
    return lambda values: values * factor
