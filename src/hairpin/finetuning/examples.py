"""Examples of different lengths as batches: padded on the right, to the longest of the batch.

Attention looks only to the left, so that what stands behind an example changes nothing in it; and
a padded place is no target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.data.order import Indices, SampleOrder
from hairpin.data.records import Row
from hairpin.errors import CorpusError

_MOST_PROBLEMS = 10
_MOST_PLACES = 8


@dataclass(frozen=True)
class Example:
    """One example.

    Args:
        inputs: token ids, int64 [n].
        targets: what is to be predicted at each, int64 [n]; `IGNORED`: nothing.
        place: where it stands in the user's file.
    """

    inputs: Indices
    targets: Indices
    place: str


@dataclass
class Examples:
    """What rows have become.

    Args:
        examples: those that are learned or measured.
        rows: the row of each.
        cut: how many of them were cut to the context.
        dropped: rows that are longer than the context and were dropped.
    """

    examples: list[Example] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    cut: int = 0
    dropped: int = 0

    def add(self, example: Example, row: Row, *, is_cut: bool) -> None:
        """Take one more."""
        self.examples.append(example)
        self.rows.append(row)
        self.cut += is_cut


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Inputs and targets, int64 [examples, length of the longest]."""
    size = (len(examples), max(len(example.inputs) for example in examples))
    inputs = np.zeros(size, np.int64)  # any legal id will do behind an example
    targets = np.full(size, IGNORED, np.int64)
    for row, example in enumerate(examples):
        inputs[row, : len(example.inputs)] = example.inputs
        targets[row, : len(example.targets)] = example.targets
    return torch.from_numpy(inputs), torch.from_numpy(targets)


class ExampleBatches:
    """Training batches as a pure function of (seed, position); every epoch has another order.

    Args:
        examples: at least one.
        seed: of the order.
    """

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self._examples = examples
        self._order = SampleOrder(len(examples), seed)

    def at(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the examples at `count` positions."""
        return collate(self._chosen(position, count))

    def where(self, position: int, count: int) -> str:
        """Where in the user's file these examples stand."""
        places = [example.place for example in self._chosen(position, min(count, _MOST_PLACES))]
        more = f" and {count - len(places):,} more" if count > len(places) else ""
        return ", ".join(places) + more

    def _chosen(self, position: int, count: int) -> list[Example]:
        _, indices = self._order.at(position, count)
        return [self._examples[index] for index in indices]


class ExampleSet:
    """A fixed evaluation set, the short examples first, so that little is padded.

    Args:
        examples: at least one.
        most: take about this many of them, spread evenly; None: all.
    """

    def __init__(self, examples: Sequence[Example], most: int | None = None) -> None:
        count = len(examples) if most is None else max(1, min(most, len(examples)))
        chosen = [examples[index * len(examples) // count] for index in range(count)]
        self._examples = sorted(chosen, key=lambda example: len(example.inputs))

    @property
    def count(self) -> int:
        """Examples in the set."""
        return len(self._examples)

    def batches(self, sequences: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, padded to the longest of each batch."""
        for first in range(0, self.count, sequences):
            yield collate(self._examples[first:][:sequences])


def fit(ids: Indices, room: int, config: Config) -> Indices | None:
    """The ids cut to at most `room` as `finetune.too_long` says; None where it says to stop."""
    if len(ids) <= room:
        return ids
    if config.finetune.too_long in ("error", "drop") or room < 1:
        return None
    return ids[:room] if config.finetune.too_long == "keep-start" else ids[-room:]


def refuse(problems: Sequence[str]) -> None:
    """Stop if there are problems, naming the first ones.

    Raises:
        CorpusError: a line for each, and one for how many more there are.
    """
    if not problems:
        return
    lines = list(problems[:_MOST_PROBLEMS])
    if len(problems) > len(lines):
        lines.append(f"… and {len(problems) - len(lines):,} more like these")
    raise CorpusError(lines)
