"""Plots of a run as PNG files: loss, learning rate, gradient norm; and of a schedule."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hairpin.reports.curves import plotted_updates, schedule_title
from hairpin.reports.figures import (
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    add_tokens_axis,
    dot,
    finish,
    log_ticks,
    mark_lr,
    marks,
    new_figure,
    save_figure,
    scale_loss,
    times,
)
from hairpin.reports.formats import format_loss
from hairpin.reports.held import history
from hairpin.reports.label_plots import (
    accuracy_figure,
    best_confusion,
    confusion_figure,
    labels_of,
)
from hairpin.reports.series import COLUMNS, Event, highest, series, smoothed, source_series, thin
from hairpin.reports.summary import Point, summarize
from hairpin.schedules.curves import CURVES, Schedule


def write_plots(
    record: Sequence[Event], folder: Path, *, clip_threshold: float | None, clip_kind: str
) -> list[Path]:
    """Draw a run's plots into `folder`, which is made if missing.

    Args:
        record: the events of a metrics.jsonl, oldest first.
        folder: the folder for `loss.png`, `learning-rate.png` and `gradient-norm.png`, a mixture's
            `sources.png`, and a classifier's `accuracy.png` and `confusion.png`.
        clip_threshold: the largest norm (or entry) that is not clipped; None: no clipping.
        clip_kind: "norm", "value" or "off".

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = run_figures(record, clip_threshold=clip_threshold, clip_kind=clip_kind)
    return [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]


def run_figures(
    record: Sequence[Event], *, clip_threshold: float | None, clip_kind: str
) -> dict[str, Figure]:
    """Return the same plots as figures by name: "loss", "learning-rate", "gradient-norm" …"""
    events = history(record)
    threshold = clip_threshold if clip_kind == "norm" else None
    figures = {
        "loss": loss_figure(events),
        "learning-rate": lr_figure(events),
        "gradient-norm": norm_figure(events, threshold, clip_kind),
    }
    if source_series(events, "val_loss"):
        figures["sources"] = sources_figure(events)
    if labels := labels_of(events):
        figures["accuracy"] = accuracy_figure(events)
        if matrix := best_confusion(events):
            figures["confusion"] = confusion_figure(matrix, labels)
    return figures


def write_schedule_plot(schedule: Schedule, path: Path) -> None:
    """Plot the learning rate of every update of a schedule, its peak and ends marked."""
    save_figure(schedule_figure(schedule), path)


def loss_figure(events: Sequence[Event]) -> Figure:
    """Plot loss against updates: each update's own batch, smoothed, and the evaluations."""
    updates, losses = series(events, "update", "loss")
    evaluated, train = series(events, "evaluation", "train_loss")
    _, val = series(events, "evaluation", "val_loss")
    best = summarize(events).best
    figure, ax = new_figure(_loss_title(best), f"loss ({_unit(events)})")
    ax.plot(*thin(updates, losses), color=SKY, lw=0.7, alpha=0.6, label="train, each update")
    ax.plot(*thin(updates, smoothed(losses)), color=BLUE, lw=1.8, label="train, smoothed")
    ax.plot(evaluated, train, **marks(BLUE, "s"), ls="", label="train, evaluated")
    ax.plot(evaluated, val, **marks(VERMILLION, "o"), lw=1.4, label="validation")
    if best is not None and best.val_loss is not None:
        star = dot(ORANGE) | {"marker": "*", "ms": 17, "mec": "black"}
        ax.plot(best.update, best.val_loss, **star, label="best validation")
    scale_loss(ax, losses, train, val)
    add_tokens_axis(ax, events)
    _add_bits_axis(ax, events)
    finish(ax)
    return figure


def sources_figure(events: Sequence[Event]) -> Figure:
    """Plot the validation loss of each source of a mixture."""
    figure, ax = new_figure("Validation loss by source", "loss (nats per token)")
    found = source_series(events, "val_loss")
    colors = (BLUE, VERMILLION, ORANGE, SKY, GREY, "black")
    for at, (name, (updates, losses)) in enumerate(found.items()):
        style = marks(colors[at % len(colors)], "os^Dv"[at % 5])
        ax.plot(updates, losses, **style, lw=1.4, label=name)
    scale_loss(ax, *(losses for _, losses in found.values()))
    add_tokens_axis(ax, events)
    finish(ax)
    return figure


def lr_figure(events: Sequence[Event]) -> Figure:
    """Plot the learning rate of each update, with the end of warmup and the last update marked."""
    updates, lr = series(events, "update", "lr")
    figure, ax = new_figure("Learning rate", "learning rate")
    ax.plot(*thin(updates, lr), color=BLUE, lw=2)
    if np.isfinite(lr).any():
        mark_lr(ax, updates, lr)
    add_tokens_axis(ax, events)
    finish(ax)
    return figure


def norm_figure(events: Sequence[Event], threshold: float | None, clip_kind: str) -> Figure:
    """Plot the gradient norm before clipping, the clip line, and the clipped updates.

    Args:
        events: the record.
        threshold: height of the clip line; None: no line.
        clip_kind: "norm", "value" or "off", named in the title.
    """
    updates, norms = series(events, "update", "grad_norm")
    norms = np.where(norms > 0, norms, np.nan)  # a logarithmic axis has no zero
    clipped = series(events, "update", "clipped")[1] == 1
    figure, ax = new_figure(_norm_title(clipped, clip_kind), "global L2 norm, logarithmic")
    ax.set_yscale("log")
    ax.plot(*thin(updates, norms), color=SKY, lw=0.8, label="gradient norm before clipping")
    marked = clipped & np.isfinite(norms)
    if marked.any():
        xs, ys = highest(updates[marked], norms[marked], updates[-1])
        ax.scatter(xs, ys, s=9, color=VERMILLION, zorder=3, linewidths=0, label="clipped")
    if threshold is not None:
        label = f"clip threshold, {threshold:g}"
        ax.axhline(threshold, color="black", lw=1.3, ls="--", zorder=4, label=label)
    log_ticks(ax.yaxis, *ax.get_ylim())
    add_tokens_axis(ax, events)
    finish(ax)
    return figure


def schedule_figure(schedule: Schedule) -> Figure:
    """Plot a schedule that nothing has been trained with yet."""
    updates = np.array(plotted_updates(schedule, 2 * COLUMNS), np.float64)
    lr = np.array([schedule(int(update)) for update in updates])
    figure, ax = new_figure(schedule_title(schedule), "learning rate")
    ax.plot(updates, lr, color=BLUE, lw=2)
    mark_lr(ax, updates, lr, "min" if CURVES[schedule.kind].decays else "last")
    finish(ax)
    return figure


def _add_bits_axis(ax: Axes, events: Sequence[Event]) -> None:
    """Add bits per byte on the right: for a fixed text they are proportional to the loss."""
    _, val = series(events, "evaluation", "val_loss")
    _, bits = series(events, "evaluation", "val_bits_per_byte")
    usable = np.isfinite(val) & np.isfinite(bits) & (val > 0) & (bits > 0)
    if not usable.any():
        return
    ratio = float(np.median(bits[usable] / val[usable]))
    axis = ax.secondary_yaxis("right", functions=(times(ratio), times(1 / ratio)))
    axis.set_ylabel("validation bits per byte", fontsize=11, color=GREY)
    if ax.get_yscale() == "log":
        log_ticks(axis.yaxis, *ax.get_ylim())
    axis.tick_params(labelsize=10, colors=GREY)
    axis.spines["right"].set_color("#BBBBBB")


def _unit(events: Sequence[Event]) -> str:
    return "nats per example" if labels_of(events) else "nats per token"


def _loss_title(best: Point | None) -> str:
    if best is None:
        return "Loss"
    unit = "nats per token" if best.val_accuracy is None else "nats per example"
    title = f"Loss: best validation {format_loss(best.val_loss)} {unit}"
    if best.val_bits_per_byte is not None:
        title += f" ({best.val_bits_per_byte:.3f} bits per byte)"
    return f"{title} after {best.update:,} updates"


def _norm_title(clipped: NDArray[np.bool_], clip_kind: str) -> str:
    if clip_kind == "off":
        return "Gradient norm (clipping is off)"
    title = "Gradient norm before clipping" + (" by value" if clip_kind == "value" else "")
    if not len(clipped):
        return title
    return f"{title}: {clipped.mean():.1%} of {len(clipped):,} updates clipped"
