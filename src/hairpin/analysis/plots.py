"""The plots of a run as PNG files: loss, learning rate, gradient norm; and of a schedule.

Figures are made without pyplot and without its global state, so that any thread may draw. Colours
are those of Okabe and Ito, which people with any colour vision can tell apart.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from hairpin.analysis.curves import plotted_updates, schedule_title
from hairpin.analysis.formats import format_count, format_loss, format_lr
from hairpin.analysis.summary import Point, history, summarize
from hairpin.schedules import CURVES, Schedule

BLUE, SKY, ORANGE, VERMILLION, GREY = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#666666"
# A figure is about this many pixels wide inside: more points than twice that cannot be seen.
COLUMNS = 1000
_DENSE = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0]

Floats = NDArray[np.float64]
Event = dict[str, Any]


def write_plots(
    record: Sequence[Event], folder: Path, *, clip_threshold: float | None, clip_kind: str
) -> list[Path]:
    """Draw a run's three plots into `folder`, which is made if missing.

    Args:
        record: the events of a metrics.jsonl, oldest first.
        folder: where `loss.png`, `learning-rate.png` and `gradient-norm.png` go.
        clip_threshold: the largest norm (or entry) that is not clipped; None: no clipping.
        clip_kind: "norm", "value" or "off".

    Returns:
        The paths of the files.
    """
    events = history(record)
    folder.mkdir(parents=True, exist_ok=True)
    threshold = clip_threshold if clip_kind == "norm" else None
    figures = {
        "loss.png": loss_figure(events),
        "learning-rate.png": lr_figure(events),
        "gradient-norm.png": norm_figure(events, threshold, clip_kind),
    }
    return [_save(figure, folder / name) for name, figure in figures.items()]


def write_schedule_plot(schedule: Schedule, path: Path) -> None:
    """Draw the learning rate of every update of a schedule, its peak and ends marked."""
    _save(schedule_figure(schedule), path)


def loss_figure(events: Sequence[Event]) -> Figure:
    """Loss against updates: each update's own batch, smoothed, and the evaluations."""
    updates, losses = _series(events, "update", "loss")
    evaluated, train = _series(events, "evaluation", "train_loss")
    _, val = _series(events, "evaluation", "val_loss")
    best = summarize(events).best
    figure, ax = _figure(_loss_title(best), "loss (nats per token)")
    ax.plot(*thin(updates, losses), color=SKY, lw=0.7, alpha=0.6, label="train, each update")
    ax.plot(*thin(updates, smoothed(losses)), color=BLUE, lw=1.8, label="train, smoothed")
    ax.plot(evaluated, train, **_marks(BLUE, "s"), ls="", label="train, evaluated")
    ax.plot(evaluated, val, **_marks(VERMILLION, "o"), lw=1.4, label="validation")
    if best is not None and best.val_loss is not None:
        star = _dot(ORANGE) | {"marker": "*", "ms": 17, "mec": "black"}
        ax.plot(best.update, best.val_loss, **star, label="best validation")
    _scale_loss(ax, losses, train, val)
    _add_tokens_axis(ax, events)
    _add_bits_axis(ax, events)
    _finish(ax)
    return figure


def lr_figure(events: Sequence[Event]) -> Figure:
    """The learning rate that each update had, with the end of warmup and the last marked."""
    updates, lr = _series(events, "update", "lr")
    figure, ax = _figure("Learning rate", "learning rate")
    ax.plot(*thin(updates, lr), color=BLUE, lw=2)
    if np.isfinite(lr).any():
        _mark_lr(ax, updates, lr)
    _add_tokens_axis(ax, events)
    _finish(ax)
    return figure


def norm_figure(events: Sequence[Event], threshold: float | None, clip_kind: str) -> Figure:
    """The gradient norm before clipping, the clip line, and the clipped updates marked.

    Args:
        events: the record.
        threshold: where the clip line goes; None: no line.
        clip_kind: "norm", "value" or "off", named in the title.
    """
    updates, norms = _series(events, "update", "grad_norm")
    norms = np.where(norms > 0, norms, np.nan)  # a logarithmic axis has no place for zero
    clipped = np.array([bool(e.get("clipped")) for e in events if e["event"] == "update"], bool)
    figure, ax = _figure(_norm_title(clipped, clip_kind), "global L2 norm, logarithmic")
    ax.set_yscale("log")
    ax.plot(*thin(updates, norms), color=SKY, lw=0.8, label="gradient norm before clipping")
    marked = clipped & np.isfinite(norms)
    if marked.any():
        xs, ys = highest(updates[marked], norms[marked], updates[-1])
        ax.scatter(xs, ys, s=9, color=VERMILLION, zorder=3, linewidths=0, label="clipped")
    if threshold is not None:
        label = f"clip threshold, {threshold:g}"
        ax.axhline(threshold, color="black", lw=1.3, ls="--", zorder=4, label=label)
    _log_ticks(ax.yaxis, *ax.get_ylim())
    _add_tokens_axis(ax, events)
    _finish(ax)
    return figure


def schedule_figure(schedule: Schedule) -> Figure:
    """The curve of a schedule that nothing has been trained with yet."""
    updates = np.array(plotted_updates(schedule, 2 * COLUMNS), np.float64)
    lr = np.array([schedule(int(update)) for update in updates])
    figure, ax = _figure(schedule_title(schedule), "learning rate")
    ax.plot(updates, lr, color=BLUE, lw=2)
    _mark_lr(ax, updates, lr, "min" if CURVES[schedule.kind].decays else "last")
    _finish(ax)
    return figure


def thin(xs: Floats, ys: Floats, columns: int = COLUMNS) -> tuple[Floats, Floats]:
    """At most two points a column, the lowest and the highest, so that no spike is lost.

    A column without a finite value keeps one NaN, so that a gap stays a gap.
    """
    if len(xs) <= 2 * columns:
        return xs, ys
    kept: set[int] = {0, len(xs) - 1}
    for part in np.array_split(np.arange(len(xs)), columns):
        values = ys[part]
        if np.isfinite(values).any():
            kept.update((int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])))
        else:
            kept.add(int(part[0]))
    order = np.array(sorted(kept))
    return xs[order], ys[order]


def highest(xs: Floats, ys: Floats, last: float, columns: int = COLUMNS) -> tuple[Floats, Floats]:
    """The highest point of each column of the width from 0 to `last`; all, if they are few."""
    if len(xs) <= columns:
        return xs, ys
    column = (xs * columns / (last + 1)).astype(np.int64)
    order = np.lexsort((ys, column))
    ends = np.append(np.flatnonzero(np.diff(column[order])), len(order) - 1)
    return xs[order[ends]], ys[order[ends]]


def smoothed(ys: Floats) -> Floats:
    """A centred moving mean over the finite values, over 2% of the run or 7 updates.

    At the start the window shrinks, so that the curve begins at the first loss. NaN where the
    value itself is.
    """
    at = np.arange(len(ys))
    half = max(3, len(ys) // 100)
    finite = np.isfinite(ys)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, ys, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    low = at - np.minimum(at, half)
    high = np.minimum(len(ys), at + np.minimum(at, half) + 1)
    means = (sums[high] - sums[low]) / np.maximum(1, counts[high] - counts[low])
    return np.where(finite, means, np.nan)


def _series(events: Iterable[Event], name: str, key: str) -> tuple[Floats, Floats]:
    """The updates and values of a key; null is NaN."""
    points = [(e["update"], e.get(key)) for e in events if e["event"] == name]
    ys = [math.nan if value is None else float(value) for _, value in points]
    return np.array([x for x, _ in points], np.float64), np.array(ys, np.float64)


def _figure(title: str, y_label: str) -> tuple[Figure, Axes]:
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


def _finish(ax: Axes) -> None:
    """Put the legend under the axes, where it hides nothing, or say that there is nothing."""
    if any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in ax.lines):
        assert isinstance(ax.figure, Figure)
        ax.figure.legend(loc="outside lower center", ncols=5, fontsize=11, frameon=False)
    else:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "nothing recorded yet", transform=ax.transAxes, ha="center", color=GREY)


def _save(figure: Figure, path: Path) -> Path:
    # Whoever looks at the folder meanwhile sees the old picture or the new one, never half.
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", metadata={"Software": None})
    partial.replace(path)
    return path


def _marks(color: str, marker: str) -> dict[str, Any]:
    return {"color": color, "marker": marker, "ms": 5, "mec": "white", "mew": 0.8}


def _dot(color: str) -> dict[str, Any]:
    style = {"ls": "", "marker": "o", "ms": 9, "mec": "white", "color": color}
    return style | {"mew": 0.8, "clip_on": False, "zorder": 5}


def _scale_loss(ax: Axes, *series: Floats) -> None:
    """A logarithmic axis, as losses above 0 allow: the late, slow progress can be seen too."""
    finite = np.concatenate(series)
    finite = finite[np.isfinite(finite)]
    if len(finite) and finite.min() > 0:
        ax.set_yscale("log")
        ax.set_ylabel("loss (nats per token, logarithmic)", fontsize=12)
        _log_ticks(ax.yaxis, *ax.get_ylim())


def _log_ticks(axis: Axis, low: float, high: float) -> None:
    """Plain numbers as ticks of a logarithmic axis; the fewer decades, the more of each.

    Where all of them are outside, LogLocator takes evenly spaced ones by itself.
    """
    decades = math.log10(high / low)
    subs = [1.0] if decades > 3 else [1.0, 2.0, 5.0] if decades > 1.2 else _DENSE
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _add_tokens_axis(ax: Axes, events: Sequence[Event]) -> None:
    _, tokens = _series(events, "update", "tokens")
    if not tokens.sum() > 0:
        return
    each = float(tokens.mean())
    axis = ax.secondary_xaxis("top", functions=(_times(each), _times(1 / each)))
    axis.set_xlabel("tokens", fontsize=11, color=GREY, labelpad=7)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: format_count(tokens)))
    axis.tick_params(labelsize=10, colors=GREY)
    axis.spines["top"].set_color("#BBBBBB")


def _add_bits_axis(ax: Axes, events: Sequence[Event]) -> None:
    """Bits per byte on the right: the evaluated text is fixed, so it is the loss times a number."""
    _, val = _series(events, "evaluation", "val_loss")
    _, bits = _series(events, "evaluation", "val_bits_per_byte")
    usable = np.isfinite(val) & np.isfinite(bits) & (val > 0) & (bits > 0)
    if not usable.any():
        return
    ratio = float(np.median(bits[usable] / val[usable]))
    axis = ax.secondary_yaxis("right", functions=(_times(ratio), _times(1 / ratio)))
    axis.set_ylabel("validation bits per byte", fontsize=11, color=GREY)
    if ax.get_yscale() == "log":
        _log_ticks(axis.yaxis, *ax.get_ylim())
    axis.tick_params(labelsize=10, colors=GREY)
    axis.spines["right"].set_color("#BBBBBB")


def _loss_title(best: Point | None) -> str:
    if best is None:
        return "Loss"
    title = f"Loss: best validation {format_loss(best.val_loss)} nats per token"
    if best.val_bits_per_byte is not None:
        title += f" ({best.val_bits_per_byte:.3f} bits per byte)"
    return f"{title} after {best.update:,} updates"


def _mark_lr(ax: Axes, updates: Floats, lr: Floats, last_name: str = "last") -> None:
    """Dots with their values at the first update, the peak and the last update."""
    peak, last = int(np.nanargmax(lr)), len(lr) - 1
    marks = {0: ("first", GREY), last: (last_name, VERMILLION)}
    marks[peak] = ("end of warmup, peak" if 0 < peak < last else "peak", ORANGE)
    for index, (name, color) in sorted(marks.items()):
        words = f"{name}: {format_lr(lr[index])} at update {updates[index]:,.0f}"
        ax.plot(updates[index], lr[index], **_dot(color), label=words)
    ax.set_ylim(bottom=0, top=1.06 * float(np.nanmax(lr)) or None)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_lr(value)))


def _norm_title(clipped: NDArray[np.bool_], clip_kind: str) -> str:
    if clip_kind == "off":
        return "Gradient norm (clipping is off)"
    title = "Gradient norm before clipping" + (" by value" if clip_kind == "value" else "")
    if not len(clipped):
        return title
    return f"{title}: {clipped.mean():.1%} of {len(clipped):,} updates clipped"


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda values: values * factor
