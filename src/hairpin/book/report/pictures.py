"""The appendix's figures D.1 and D.2, and its losses, as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hairpin.book.report.beside import BesideRun
from hairpin.book.report.experiment import Outcome
from hairpin.book.report.printed import PRINTED_LOSSES
from hairpin.reports.figures import (
    BLUE,
    ORANGE,
    SKY,
    VERMILLION,
    finish,
    mark_lr,
    marks,
    new_figure,
    save_figure,
    scale_loss,
)

WARMUP, COSINE, LOSSES = "book-warmup.png", "book-cosine.png", "book-losses.png"


def write_pictures(
    outcome: Outcome, folder: Path, *, of_the_story: bool, beside: BesideRun | None
) -> list[Path]:
    """Draw the three pictures into `folder`."""
    figures = {
        WARMUP: rates_figure("Figure D.1: linear warmup", outcome.warmup_lrs),
        COSINE: rates_figure("Figure D.2: linear warmup, then cosine decay", outcome.cosine_lrs),
        LOSSES: losses_figure(outcome, of_the_story=of_the_story, beside=beside),
    }
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


def rates_figure(title: str, rates: Sequence[float]) -> Figure:
    """Plot the learning rate of each step."""
    figure, ax = new_figure(title, "learning rate")
    updates, lr = np.arange(len(rates), dtype=np.float64), np.array(rates)
    ax.plot(updates, lr, color=BLUE, lw=2)
    mark_lr(ax, updates, lr)
    finish(ax)
    return figure


def losses_figure(
    outcome: Outcome, *, of_the_story: bool, beside: BesideRun | None = None
) -> Figure:
    """Plot both losses against the updates before them, with the printed ones as rings."""
    title = "Losses of the appendix's listings"
    if beside is not None:
        title += ", and of hairpin's own loop"
    figure, ax = new_figure(title, "loss (nats per token)")
    ax.set_xlabel("updates made", fontsize=12)
    made = [at.iteration + 1 for at in outcome.losses]
    train, val = [at.train for at in outcome.losses], [at.val for at in outcome.losses]
    ax.plot(made, train, **marks(BLUE, "s"), lw=1.6, label="listings, training")
    ax.plot(made, val, **marks(VERMILLION, "o"), lw=1.6, label="listings, validation")
    series = [np.array(train), np.array(val)]
    if beside is not None:
        style: dict[str, Any] = {"lw": 1.4, "ls": "--"}
        ax.plot(beside.updates, beside.train, **marks(SKY, "s"), **style, label="recipe, training")
        ax.plot(
            beside.updates, beside.val, **marks(ORANGE, "o"), **style, label="recipe, validation"
        )
        series += [np.array(beside.train), np.array(beside.val)]
    if of_the_story:
        reached = [at.iteration for at in outcome.losses if at.iteration in PRINTED_LOSSES]
        points = [(i + 1, float(loss)) for i in reached for loss in PRINTED_LOSSES[i]]
        ring: dict[str, Any] = {
            "ls": "",
            "marker": "o",
            "ms": 12,
            "mfc": "none",
            "mec": "black",
            "mew": 1.2,
        }
        ax.plot(*zip(*points, strict=True), **ring, label="as printed")
    scale_loss(ax, *series)
    finish(ax)
    return figure
