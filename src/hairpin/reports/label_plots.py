"""The plots of a classifier: accuracy and confusion matrix."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import PercentFormatter

from hairpin.reports.figures import (
    BLUE,
    GREY,
    ORANGE,
    VERMILLION,
    dot,
    finish,
    marks,
    new_figure,
)
from hairpin.reports.formats import harmless_name
from hairpin.reports.held import of_kind, others
from hairpin.reports.series import Event, series

Matrix = Sequence[Sequence[int]]

_MOST_WRITTEN = 16  # labels up to which every cell shows its count
_LONGEST_NAME = 24  # characters, as in the table on the terminal


def labels_of(events: Sequence[Event]) -> tuple[str, ...]:
    """Return a classifier's labels; empty for other runs."""
    plans = of_kind(events, "plan")
    return tuple(plans[-1].get("labels") or ()) if plans else ()


def best_confusion(events: Sequence[Event]) -> Matrix | None:
    """Return the confusion matrix at the lowest validation loss, whose weights are kept."""
    found = [e for e in others(events) if e.get("val_confusion") and e.get("val_loss") is not None]
    matrix: Matrix | None = min(found, key=_val_loss, default={}).get("val_confusion")
    return matrix


def accuracy_figure(events: Sequence[Event]) -> Figure:
    """Plot the share of correct labels in training and validation against updates."""
    evaluated, train = series(events, "evaluation", "train_accuracy")
    _, val = series(events, "evaluation", "val_accuracy")
    _, losses = series(events, "evaluation", "val_loss")
    title, best = "Accuracy", None
    if np.isfinite(losses).any():
        best = int(np.nanargmin(losses))
        title = f"Accuracy: {val[best]:.1%} of validation labels right where the loss is lowest"
    figure, ax = new_figure(title, "share of labels that are right")
    ax.plot(evaluated, train, **marks(BLUE, "s"), lw=1.4, label="train")
    ax.plot(evaluated, val, **marks(VERMILLION, "o"), lw=1.4, label="validation")
    if best is not None:
        star = dot(ORANGE) | {"marker": "*", "ms": 17, "mec": "black"}
        ax.plot(evaluated[best], val[best], **star, label="lowest validation loss")
    share = _largest_share(events)
    if share is not None:
        ax.axhline(share, color=GREY, lw=1.2, ls="--", label="always the commonest label")
    ax.set_ylim(0, 1.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    finish(ax)
    return figure


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
    names = [_drawable(harmless_name(label, _LONGEST_NAME)) for label in labels]
    # A dollar sign in a label does not begin a formula.
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set_xticks(range(len(names)), names, parse_math=False)
    if len(names) > 2:
        upright = len(names) > _MOST_WRITTEN
        for tick in ax.get_xticklabels():
            tick.set(rotation=90 if upright else 35, ha="right", rotation_mode="anchor")
            tick.set_verticalalignment("center" if upright else "top")
    ax.set_xlabel("taken for", fontsize=12)
    ax.set_ylabel("is", fontsize=12)
    right = counts.trace() / max(1.0, counts.sum())
    ax.set_title(f"{right:.1%} of {counts.sum():,.0f} validation labels are right", fontsize=13)
    if len(names) <= _MOST_WRITTEN:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.55 else "black"
            size = 14 if len(names) <= 4 else 10
            ax.text(column, row, f"{count:,.0f}", ha="center", va="center", color=color, size=size)
    bar = figure.colorbar(image, ax=ax, shrink=0.8, format=PercentFormatter(1.0))
    bar.set_label("of the label's examples", fontsize=11)
    return figure


def _val_loss(event: Event) -> float:
    return float(event["val_loss"])


def _largest_share(events: Sequence[Event]) -> float | None:
    """Return the accuracy of always predicting the validation set's commonest label; None: the
    record has no matrix.
    """
    matrix = best_confusion(events)
    if matrix is None:
        return None
    rows = [sum(row) for row in matrix]
    return max(rows) / max(1, sum(rows))


def _drawable(name: str) -> str:
    """Escape characters of the name that the plots' font lacks."""
    font = get_font(findfont(FontProperties()))
    return "".join(
        character if font.get_char_index(ord(character)) else ascii(character)[1:-1]
        for character in name
    )
