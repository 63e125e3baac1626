"""A measurement as lines of text."""

from collections.abc import Sequence
from typing import Protocol

from hairpin.analysis.formats import harmless


class Measurement(Protocol):
    """What was measured: see `training.evaluate.Measured`."""

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


def measured_lines(measured: Measurement, labels: Sequence[str] = ()) -> list[str]:
    """The figures, each with its name in front, and how often which label was taken for which."""
    if measured.accuracy is None:
        lines = [
            f"loss           {measured.loss:.4f} nats per token ({measured.tokens:,} tokens)",
            f"perplexity     {measured.perplexity:.2f}",
        ]
        if measured.bits_per_byte is not None:
            lines.append(f"bits per byte  {measured.bits_per_byte:.4f}")
        return lines
    lines = [
        f"accuracy       {measured.accuracy:.1%} of {measured.tokens:,} examples",
        f"loss           {measured.loss:.4f} nats per example",
    ]
    if measured.confusion:
        lines += ["", *confusion_lines(measured.confusion, labels)]
    return lines


def confusion_lines(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> list[str]:
    """A table: a row for each label that texts have, a column for each that they were given."""
    names = [harmless(label) for label in labels]
    first = max(map(len, (*names, "is \\ taken for")))
    widths = [
        max(len(name), *(len(f"{row[column]:,}") for row in confusion))
        for column, name in enumerate(names)
    ]
    cells = [names, *([f"{count:,}" for count in row] for row in confusion)]
    heads = ["is \\ taken for", *names]
    return [
        f"{head:<{first}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True))
        for head, row in zip(heads, cells, strict=True)
    ]
