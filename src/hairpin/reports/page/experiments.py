"""The pages of experiments: the setup, the outcome, and pictures."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from hairpin.reports.comparison import Comparison
from hairpin.reports.conclusions import arm_rows, contrast_rows, title_of
from hairpin.reports.formats import format_lr
from hairpin.reports.page.markup import escape, note, section, table
from hairpin.reports.page.shell import page

# Captions of the pictures, also used as their alternative text.
_CAPTIONS = {
    "learning-rates.png": "Final validation loss against the peak learning rate. Lines are means "
    "over the seeds that rates are tuned on, bands go from the lowest to the highest; large open "
    "marks are the runs of the verdict, on seeds of their own. What is far above is cut off.",
    "differences.png": "Differences with their 95% intervals, and those of single seeds as dots. "
    "Inside the grey band they do not matter.",
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
    words = "; ".join(fact for fact in facts if fact)
    notes = "".join(f"<li>{escape(text)}</li>" for text in comparison.notes)
    verdicts = [
        f"<li><strong>{escape(contrast.name)}</strong> against {escape(contrast.base)}: "
        f"{escape(contrast.verdict)}</li>"
        for contrast in comparison.contrasts
    ]
    head, *arms = arm_rows(comparison)
    body = [
        f'<header><h1>{escape(title_of(comparison))}</h1><p class="standing">{escape(words)}</p>'
        "</header>",
        section("notes", "Before you believe it", f"<ul>{notes}</ul>" if notes else ""),
        section("verdicts", "Verdicts", f"<ul>{''.join(verdicts)}</ul>" if verdicts else ""),
        section("pictures", "Pictures", "".join(map(_figure, pictures))),
        section("arms", "Arms", table(f"Validation loss in {unit}", head, arms)),
    ]
    if comparison.contrasts:
        head, *rows = contrast_rows(comparison)
        names = f"Differences in {unit}; below 0 is better"
        body.append(section("differences", "Differences", table(names, head, rows, words=2)))
    return page(title_of(comparison), "\n".join(body))


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
    body = [
        f"<header><h1>{escape(title)}</h1></header>",
        *(f"<p>{escape(reason)}</p>" for reason in reasons),
        _figure(picture),
        section("rates", "Rates", table("Final validation loss", head, rates)),
        note("Each rate was trained with the whole schedule; the runs were not kept."),
    ]
    return page(title, "\n".join(body))


def rate_row(lr: float, mean: float, losses: Sequence[float], *, diverged: bool) -> list[str]:
    """Return a learning rate's row of the table."""
    singles = ", ".join(f"{loss:.4f}" for loss in losses)
    return [format_lr(lr), "" if diverged else f"{mean:.4f}", singles, "diverged" * diverged]


def _figure(picture: Path) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    caption = escape(_CAPTIONS.get(picture.name, ""))
    image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
