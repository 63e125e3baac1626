"""The pages of experiments: the setup, the outcome, and pictures."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hairpin.reports.comparison import Comparison
from hairpin.reports.conclusions import arm_rows, contrast_rows, title_of
from hairpin.reports.formats import format_lr
from hairpin.reports.page.markup import Table
from hairpin.reports.page.shell import page

# Captions of the pictures, also used as their alternative text.
_CAPTIONS = {
    "learning-rates.png": "Final validation loss against the peak learning rate. Lines are means "
    "over the tuning seeds, bands range from the lowest to the highest; large open marks are the "
    "verdict runs, on other seeds. Values far above are cut off.",
    "differences.png": "Differences with their 95% intervals, and those of single seeds as dots. "
    "Differences inside the grey band are too small to matter.",
    "curves.png": "Validation loss over training: means over seeds, and bands from the lowest to "
    "the highest.",
}


def comparison_page(comparison: Comparison, pictures: Sequence[Path]) -> str:
    """Return the page of a comparison or an ablation.

    Args:
        comparison: the outcome.
        pictures: PNG files, embedded in the page.
    """
    experiment, unit = comparison.experiment, comparison.unit
    facts = [experiment.model, f"equal {experiment.equal}" if experiment.equal else ""]
    head, *arms = arm_rows(comparison)
    differences = None
    if comparison.contrasts:
        names, *rows = contrast_rows(comparison)
        caption = f"Differences in {unit}; below 0 is better"
        differences = Table(caption, names, rows, words=2)
    title = title_of(comparison)
    return page(
        "comparison.html",
        title,
        facts="; ".join(fact for fact in facts if fact),
        notes=comparison.notes,
        contrasts=comparison.contrasts,
        pictures=[_picture(path) for path in pictures],
        arms=Table(f"Validation loss in {unit}", head, arms),
        differences=differences,
    )


def lr_page(lines: Sequence[str], rates: Iterable[Sequence[str]], unit: str, picture: Path) -> str:
    """Return the page of a learning-rate search.

    Args:
        lines: the suggestion, then its reasons.
        rates: rows of learning rate, losses and a remark.
        unit: of the losses.
        picture: PNG, embedded in the page.
    """
    title, *reasons = lines
    head = ["peak learning rate", unit, "of single seeds", ""]
    return page(
        "find_lr.html",
        title,
        reasons=reasons,
        picture=_picture(picture),
        rates=Table("Final validation loss", head, list(rates)),
    )


def rate_row(lr: float, mean: float, losses: Sequence[float], *, diverged: bool) -> list[str]:
    """Return a learning rate's row of the table."""
    singles = ", ".join(f"{loss:.4f}" for loss in losses)
    return [format_lr(lr), "" if diverged else f"{mean:.4f}", singles, "diverged" * diverged]


@dataclass(frozen=True)
class EmbeddedPicture:
    """A PNG file to embed in a page; its caption is its alternative text too."""

    base64: str
    caption: str


def _picture(path: Path) -> EmbeddedPicture:
    data = base64.b64encode(path.read_bytes()).decode()
    return EmbeddedPicture(data, _CAPTIONS.get(path.name, ""))
