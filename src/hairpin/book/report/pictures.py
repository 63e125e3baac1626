"""The appendix's figures D.1 and D.2, and its losses, as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hairpin.book.report.experiment import ListingResults
from hairpin.book.report.printed import PRINTED_LOSSES
from hairpin.book.report.recipe_run import RecipeRun
from hairpin.reports.chart import DASHES, Chart, Line, Picture, all_positive
from hairpin.reports.charts import rates_chart
from hairpin.reports.figures import draw, save_figure

WARMUP, COSINE, LOSSES = "book-warmup.png", "book-cosine.png", "book-losses.png"


def write_pictures(
    outcome: ListingResults, folder: Path, *, is_books_text: bool, recipe_run: RecipeRun | None
) -> list[Path]:
    """Draw the three pictures into `folder`."""
    charts = {
        WARMUP: step_chart("Figure D.1: linear warmup", outcome.warmup_lrs),
        COSINE: step_chart("Figure D.2: linear warmup, then cosine decay", outcome.cosine_lrs),
        LOSSES: losses_chart(outcome, is_books_text=is_books_text, recipe_run=recipe_run),
    }
    return [save_figure(draw(chart), folder / name) for name, chart in charts.items()]


def step_chart(title: str, rates: Sequence[float]) -> Chart:
    """Chart the learning rate of each step."""
    return rates_chart(title, np.arange(len(rates), dtype=np.float64), np.array(rates))


def losses_chart(
    outcome: ListingResults, *, is_books_text: bool, recipe_run: RecipeRun | None = None
) -> Chart:
    """Chart both losses against the updates before them, with the printed ones as rings."""
    made = [at.iteration + 1 for at in outcome.losses]
    lines = [
        _line("listings, training", made, [at.train for at in outcome.losses], "blue", "square"),
        _line("listings, validation", made, [at.val for at in outcome.losses], "vermillion"),
    ]
    title = "Losses of the appendix's listings"
    if recipe_run is not None:
        title += ", and of hairpin's own loop"
        lines += [
            _line(
                "recipe, training", recipe_run.updates, recipe_run.train, "sky", "square", DASHES[1]
            ),
            _line(
                "recipe, validation", recipe_run.updates, recipe_run.val, "orange", dash=DASHES[1]
            ),
        ]
    positive = all_positive(*(line.y for line in lines))
    if is_books_text:
        reached = [at.iteration for at in outcome.losses if at.iteration in PRINTED_LOSSES]
        points = [(i + 1, float(loss)) for i in reached for loss in PRINTED_LOSSES[i]]
        x, y = (np.array(values, np.float64) for values in zip(*points, strict=True))
        lines.append(Line("as printed", x, y, color="black", look="rings"))
    unit = "nats per token"
    picture = Picture(title, f"loss ({unit})", "updates made")
    return Chart("loss", title, unit, "loss", tuple(lines), log=positive, picture=picture)


def _line(
    name: str,
    updates: Sequence[float],
    losses: Sequence[float],
    color: str,
    marker: str = "circle",
    dash: str = "",
) -> Line:
    x, y = np.array(updates, np.float64), np.array(losses, np.float64)
    return Line(name, x, y, color=color, look="marked", marker=marker, dash=dash)
