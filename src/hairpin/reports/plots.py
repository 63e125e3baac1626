"""Plots of a run as PNG files (loss, learning rate, gradient norm …), and as PNG inside HTML for a
notebook, which needs no file and no network.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import PercentFormatter

from hairpin.config.settings import Config
from hairpin.reports.charts import (
    Matrix,
    accuracy_chart,
    best_confusion,
    labels_of,
    loss_chart,
    lr_chart,
    norm_chart,
    schedule_chart,
    source_loss_chart,
)
from hairpin.reports.figures import draw, save_figure
from hairpin.reports.formats import safe_name, safe_text
from hairpin.reports.history import history
from hairpin.reports.series import COLUMNS, Event
from hairpin.schedules.curves import Schedule

_DOTS_PER_INCH = 110  # in a notebook
_MAX_WRITTEN = 16  # labels up to which every cell shows its count
_MAX_NAME_LENGTH = 24  # characters, as in the table on the terminal


def write_plots(record: Sequence[Event], folder: Path, config: Config) -> list[Path]:
    """Draw a run's plots into `folder`, which is made if missing.

    Args:
        record: the events of a metrics.jsonl, oldest first.
        folder: the folder for `loss.png`, `learning-rate.png` and `gradient-norm.png`, a mixture's
            `sources.png`, and a classifier's `accuracy.png` and `confusion.png`.
        config: the run's.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = run_figures(record, config)
    return [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]


def run_figures(record: Sequence[Event], config: Config) -> dict[str, Figure]:
    """Return the same plots as figures by name: "loss", "learning-rate", "gradient-norm" …"""
    events = history(record)
    charts = {
        "loss": loss_chart(events),
        "learning-rate": lr_chart(events, config),
        "gradient-norm": norm_chart(events, config),
        "sources": source_loss_chart(events),
        "accuracy": accuracy_chart(events),
    }
    figures = {name: draw(chart) for name, chart in charts.items() if chart}
    labels, confusion = labels_of(events), best_confusion(events)
    if labels and confusion:
        figures["confusion"] = confusion_figure(confusion[1], labels)
    return figures


@dataclass(frozen=True)
class Pictures:
    """PNG files in memory by name."""

    png: Mapping[str, bytes]

    @classmethod
    def of(cls, figures: Mapping[str, Figure]) -> "Pictures":
        """Draw the figures."""
        return cls({name: _png(figure) for name, figure in figures.items()})

    def _repr_html_(self) -> str:
        """Return HTML with the pictures one below the other, at most as wide as the page."""
        return "\n".join(
            f'<img alt="{escape(name)}" style="max-width:100%;height:auto" '
            f'src="data:image/png;base64,{base64.b64encode(content).decode()}">'
            for name, content in self.png.items()
        )


def page_of(title: str, lines: Sequence[str], pictures: Pictures | None) -> str:
    """Return a run's notebook page: its name, its summary, its plots."""
    text = escape(safe_text("\n".join(lines)))
    shown = pictures._repr_html_() if pictures else ""
    return (
        f"<div><strong>{escape(safe_text(title))}</strong>"
        f'<pre style="white-space:pre-wrap;margin:0.5em 0">{text}</pre>{shown}</div>'
    )


def write_schedule_plot(schedule: Schedule, path: Path) -> None:
    """Plot the learning rate of every update of a schedule, its peak and ends marked."""
    save_figure(draw(schedule_chart(schedule, 2 * COLUMNS)), path)


def confusion_figure(matrix: Matrix, labels: Sequence[str]) -> Figure:
    """Plot how many examples of each label (rows) were classified as which (columns).

    The colour is the share of the row, so that rare labels are readable too.
    """
    counts = np.array(matrix, np.float64)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(12.0, 4.2 + 0.55 * len(labels))
    figure = Figure(figsize=(side + 1, side), dpi=130, layout="constrained", facecolor="white")
    ax = figure.add_subplot()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [_drawable(safe_name(label, _MAX_NAME_LENGTH)) for label in labels]
    # A dollar sign in a label does not begin a formula.
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set_xticks(range(len(names)), names, parse_math=False)
    if len(names) > 2:
        upright = len(names) > _MAX_WRITTEN
        for tick in ax.get_xticklabels():
            tick.set(rotation=90 if upright else 35, ha="right", rotation_mode="anchor")
            tick.set_verticalalignment("center" if upright else "top")
    ax.set_xlabel("predicted", fontsize=12)
    ax.set_ylabel("true label", fontsize=12)
    right = counts.trace() / max(1.0, counts.sum())
    ax.set_title(f"{right:.1%} of {counts.sum():,.0f} validation labels are correct", fontsize=13)
    if len(names) <= _MAX_WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.55 else "black"
            size = 14 if len(names) <= 4 else 10
            ax.text(column, row, f"{count:,.0f}", ha="center", va="center", color=color, size=size)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, format=PercentFormatter(1.0))
    bar.set_label("of the label's examples", fontsize=11)
    return figure


def _drawable(name: str) -> str:
    """Escape characters of the name that the plots' font lacks."""
    font = get_font(findfont(FontProperties()))
    return "".join(
        character if font.get_char_index(ord(character)) else ascii(character)[1:-1]
        for character in name
    )


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH)
    return file.getvalue()
