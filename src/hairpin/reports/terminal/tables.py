"""Measurements and predictions as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.cells import cell_len

from hairpin.reports.formats import safe_name, safe_text

_MAX_NAME_LENGTH = 24  # characters of a label in a table's rows and columns
_MAX_TEXT_LENGTH = 80


class MeasurementLike(Protocol):
    """Protocol of a measurement: see `training.evaluate.Measured`."""

    @property
    def loss(self) -> float: ...
    @property
    def tokens(self) -> int: ...
    @property
    def perplexity(self) -> float: ...
    @property
    def bits_per_byte(self) -> float | None: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def confusion(self) -> tuple[tuple[int, ...], ...] | None: ...
    @property
    def sources(self) -> "Mapping[str, MeasurementLike] | None": ...


class PredictionLike(Protocol):
    """Protocol of a classifier's prediction for a text: see `inference.PredictionLike`."""

    @property
    def label(self) -> str: ...
    @property
    def probability(self) -> float: ...
    @property
    def probabilities(self) -> Mapping[str, float]: ...


def measured_lines(measured: MeasurementLike, labels: Sequence[str] = ()) -> list[str]:
    """Return the figures, each after its name, and a classifier's confusion table."""
    if measured.accuracy is None:
        lines = [
            f"loss           {measured.loss:.4f} nats per token ({measured.tokens:,} tokens)",
            f"perplexity     {measured.perplexity:.2f}",
        ]
        if measured.bits_per_byte is not None:
            lines.append(f"bits per byte  {measured.bits_per_byte:.4f}")
        return lines + _source_lines(measured.sources or {})
    lines = [
        f"accuracy       {measured.accuracy:.1%} of {measured.tokens:,} examples",
        f"loss           {measured.loss:.4f} nats per example",
    ]
    if measured.confusion:
        lines += ["", *confusion_lines(measured.confusion, labels)]
    return lines


def _source_lines(sources: Mapping[str, MeasurementLike]) -> list[str]:
    """Return a line per source of a mixture; the loss above is their mean weighted by share."""
    width = max((len(name) for name in sources), default=0)
    return [
        f"  {name:<{width}}  {found.loss:.4f} nats per token ({found.tokens:,} tokens)"
        + ("" if found.bits_per_byte is None else f", {found.bits_per_byte:.4f} bits per byte")
        for name, found in sources.items()
    ]


def confusion_lines(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> list[str]:
    """Return a confusion table: a row for each true label, a column for each predicted one."""
    names = [safe_name(label, _MAX_NAME_LENGTH) for label in labels]
    heads = ["true \\ predicted", *names]
    cells = [names, *([f"{count:,}" for count in row] for row in confusion)]
    first = max(map(cell_len, heads))
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([_padded(head, first), *map(_right, row, widths)])
        for head, row in zip(heads, cells, strict=True)
    ]


def prediction_lines(texts: Sequence[str], predictions: Sequence[PredictionLike]) -> list[str]:
    """Return a line for each text: its label, the label's probability and the text's beginning."""
    width = max(
        (cell_len(safe_name(label)) for p in predictions for label in p.probabilities),
        default=0,
    )
    lines = []
    for text, p in zip(texts, predictions, strict=True):
        shown = " ".join(safe_text(text).split())
        shown = shown if len(shown) <= _MAX_TEXT_LENGTH else shown[: _MAX_TEXT_LENGTH - 1] + "…"
        lines.append(f"{_padded(safe_name(p.label), width)}  {p.probability:.3f}  {shown}")
    return lines


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text
