"""Batches of examples of different lengths, padded on the right to the longest of the batch.

Attention is causal, so padding after an example does not affect it; and padded positions are not
targets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.data.order import Indices, SampleOrder
from hairpin.data.tables.records import Row
from hairpin.errors import CorpusError

_MAX_PROBLEMS = 10
_MAX_PLACES = 8


@dataclass(frozen=True)
class Example:
    """A training or evaluation example.

    Args:
        inputs: token ids, int64 [n].
        targets: the token or label to predict at each, int64 [n]; `IGNORED`: none.
        place: its location in the user's file.
    """

    inputs: Indices
    targets: Indices
    place: str


@dataclass
class Examples:
    """Examples made of rows.

    Args:
        examples: those used for training or evaluation.
        rows: the row of each.
        cut: the number of them that were cut to the context.
        dropped: the number of rows dropped for being longer than the context.
    """

    examples: list[Example] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    cut: int = 0
    dropped: int = 0

    def add(self, example: Example, row: Row, *, is_cut: bool) -> None:
        """Add an example."""
        self.examples.append(example)
        self.rows.append(row)
        self.cut += is_cut


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets, int64 [examples, length of the longest]."""
    size = (len(examples), max(len(example.inputs) for example in examples))
    inputs = np.zeros(size, np.int64)  # any valid id will do after an example
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
        """Return inputs and targets of the examples at `count` positions."""
        return collate(self._chosen(position, count))

    def where(self, position: int, count: int) -> str:
        """Return the locations of these examples in the user's file."""
        places = [example.place for example in self._chosen(position, min(count, _MAX_PLACES))]
        more = f" and {count - len(places):,} more" if count > len(places) else ""
        return ", ".join(places) + more

    def _chosen(self, position: int, count: int) -> list[Example]:
        _, indices = self._order.at(position, count)
        return [self._examples[index] for index in indices]


class ExampleSet:
    """A fixed evaluation set, the short examples first, so that little is padded.

    Args:
        examples: at least one.
        most: use about this many of them, spread evenly; None: all.
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
        """Yield inputs and targets, padded to the longest of each batch."""
        for first in range(0, self.count, sequences):
            yield collate(self._examples[first:][:sequences])


def fitting_examples(ids: Indices, room: int, config: Config) -> Indices | None:
    """Return the ids cut to at most `room` as `finetune.too_long` says; None if it says stop."""
    if len(ids) <= room:
        return ids
    if config.finetune.too_long in ("error", "drop") or room < 1:
        return None
    return ids[:room] if config.finetune.too_long == "keep-start" else ids[-room:]


def refuse_examples(problems: Sequence[str]) -> None:
    """Raise if there are problems, naming the first ones.

    Raises:
        CorpusError: a line for each, and one for the number of others.
    """
    if not problems:
        return
    lines = list(problems[:_MAX_PROBLEMS])
    if len(problems) > len(lines):
        lines.append(f"… and {len(problems) - len(lines):,} more like these")
    raise CorpusError(lines)
