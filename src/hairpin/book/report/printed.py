"""The figures printed in the appendix, compared with the results here."""

import re
from dataclasses import dataclass

from hairpin.book.report.experiment import ListingResults
from hairpin.book.report.listing import EPOCHS
from hairpin.reports.formats import format_lr

PRINTED_LOSSES = {
    0: ("10.934", "10.939"),
    5: ("9.151", "9.461"),
    10: ("7.949", "8.184"),
    15: ("6.362", "6.876"),
    130: ("0.041", "6.915"),
}
_SAMPLE = "Every effort moves you"
# Epoch → its sample; for the last epoch only the beginning.
PRINTED_SAMPLES = {
    1: _SAMPLE + "," * 50,
    2: _SAMPLE + " the".join("," * commas for commas in (19, 9, 11, 8)),
    EPOCHS: _SAMPLE + '?" "Yes--quite insensible to the irony.',
}
NOT_REACHED = "not reached"
_NUMBER = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class ComparedFigure:
    """A figure of the appendix.

    Args:
        name: a description.
        printed: its text in the appendix; None: not printed there, or about another text.
        measured: the same figure in this run; None: the run ended before it.
    """

    name: str
    printed: str | None
    measured: str | None

    @property
    def agrees(self) -> str:
        """The comparison: "yes" for equal digits, "no" for others, words for a difference in the
        last digit; empty if there is nothing to compare.
        """
        if self.printed is None or self.measured is None:
            return ""
        printed, measured = " ".join(self.printed.split()), " ".join(self.measured.split())
        if measured == printed:
            return "yes"
        theirs, ours = _NUMBER.findall(printed), _NUMBER.findall(measured)
        same_words = _NUMBER.sub("#", printed) == _NUMBER.sub("#", measured)
        if theirs and same_words and all(map(_nearly, theirs, ours)):
            return "but for 1 in the last digit"
        return "no"


def findings(outcome: ListingResults, *, is_books_text: bool) -> list[ComparedFigure]:
    """Return every figure of the appendix, in its order.

    Args:
        outcome: results of the listings.
        is_books_text: they ran on the book's own text, which the printed figures are about.
    """
    rows = [*_rates(outcome), *_gradients(outcome), *_losses(outcome), *_samples(outcome)]
    if is_books_text:
        return rows
    always = {row.name for row in _rates(outcome)[1:] + _gradients(outcome)[:2]}
    return [
        row if row.name in always else ComparedFigure(row.name, None, row.measured) for row in rows
    ]


def _rates(outcome: ListingResults) -> list[ComparedFigure]:
    warmup, cosine = outcome.warmup_lrs, outcome.cosine_lrs
    return [
        ComparedFigure("warmup steps, a fifth of all", "27", str(outcome.warmup_steps)),
        ComparedFigure(
            "learning rate of the first step, D.1 and D.2", "1e-4", _both(warmup[0], cosine[0])
        ),
        ComparedFigure(
            "highest learning rate, D.1 and D.2", "1e-2", _both(max(warmup), max(cosine))
        ),
    ]


def _both(one: float, other: float) -> str:
    return format_lr(one) if one == other else f"{format_lr(one)} and {format_lr(other)}"


def _gradients(outcome: ListingResults) -> list[ComparedFigure]:
    entries = ", ".join(
        f"[{', '.join(f'{entry:.3g}' for entry in row)}]" for row in outcome.example_clipped
    )
    return [
        ComparedFigure("norm of the gradient [1, 2], [2, 4]", "5", f"{outcome.example_norm:.6g}"),
        # Each entry is divided by the norm, 5.
        ComparedFigure("the same, clipped to norm 1", "[0.2, 0.4], [0.4, 0.8]", entries),
        ComparedFigure("largest gradient of a batch", "0.0411", f"{outcome.largest_gradient:.4f}"),
        ComparedFigure(
            "the same, clipped to norm 1: largest gradient",
            "0.0185",
            f"{outcome.largest_gradient_clipped:.4f}",
        ),
    ]


def _losses(outcome: ListingResults) -> list[ComparedFigure]:
    measured = {at.iteration: f"{at.train:.3f}, {at.val:.3f}" for at in outcome.losses}
    return [
        ComparedFigure(
            f"training and validation loss, iteration {iteration}",
            ", ".join(printed),
            measured.get(iteration),
        )
        for iteration, printed in PRINTED_LOSSES.items()
    ]


def _samples(outcome: ListingResults) -> list[ComparedFigure]:
    rows = []
    for epoch, printed in PRINTED_SAMPLES.items():
        measured = None
        if epoch <= len(outcome.samples):
            measured = " ".join(outcome.samples[epoch - 1].split())[: len(printed)]
        rows.append(ComparedFigure(f"sample after epoch {epoch}, its beginning", printed, measured))
    return rows


def _nearly(printed: str, measured: str) -> bool:
    """Return True if two numbers with equally many decimals differ by at most one in the last."""
    units = [int(number.replace(".", "")) for number in (printed, measured)]
    return len(printed.partition(".")[2]) == len(measured.partition(".")[2]) and (
        abs(units[0] - units[1]) <= 1
    )
