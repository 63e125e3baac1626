"""Labelled texts: from rows of a file to examples, and the tally of a classifier on them.

An example is an end-of-text and the text, its label the target at the last token.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.data.order import Indices
from hairpin.data.tables.records import Row
from hairpin.data.tokenizers import Tokenizer
from hairpin.distributed.world import World
from hairpin.errors import CorpusError
from hairpin.tasks.examples import Example, Examples, fitting_examples, refuse_examples
from hairpin.training.evaluate import Measured, exact_zero

_MAX_NAMED = 8  # labels in a line
_TOO_LONG = ", or set finetune.too_long=keep-start (or keep-end, drop)"
_MAX_CONFUSED = 50  # labels, beyond which a confusion matrix is too large to read


def label_of(row: Row, column: str) -> str:
    """Return a row's label without surrounding blanks, such as one after a comma."""
    return row.fields[column].strip()


def labels_of(rows: Sequence[Row], column: str) -> tuple[str, ...]:
    """Return all labels, sorted.

    Raises:
        CorpusError: a label is empty, or there is only one.
    """
    advice = "give the text one, or set finetune.no_answer=drop"
    refuse_examples(
        [f"{row.place}: the label is empty; {advice}" for row in rows if not label_of(row, column)]
    )
    labels = tuple(sorted({label_of(row, column) for row in rows}))
    if len(labels) < 2:
        raise CorpusError(
            f"{rows[0].place}: every example has the label {labels[0]!r}; a classifier needs at "
            "least two labels"
        )
    return labels


def lonely_labels(labels: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Return the labels with a single text, which cannot be in both training and validation.

    Args:
        labels: of each example.
        texts: the text of each; several examples may have the same.
    """
    counts = Counter(label for label, _ in set(zip(labels, texts, strict=True)))
    return [label for label, count in sorted(counts.items()) if count == 1]


def names_of_labels(labels: Sequence[str]) -> str:
    """Return the first labels, quoted, and the number of others."""
    named = [repr(label) for label in labels[:_MAX_NAMED]]
    more = len(labels) - len(named)
    return ", ".join([*named, *([f"and {more:,} more"] if more else [])])


def labelled_examples(
    rows: Sequence[Row], labels: Sequence[str], tokenizer: Tokenizer, config: Config
) -> Examples:
    """Return the examples of labelled texts.

    Args:
        rows: with the text and label columns of `config.finetune`.
        labels: in the order of the classifier's outputs.
        tokenizer: the run's.
        config: of the run.

    Raises:
        CorpusError: an empty text, one longer than the context, an unknown label.
    """
    asked = config.finetune
    numbers = {label: number for number, label in enumerate(labels)}
    problems, made = [], Examples()
    texts = [row.fields[asked.text_column] for row in rows]
    for row, ids in zip(rows, tokenizer.encode_batch(texts), strict=True):
        label = label_of(row, asked.label_column)
        inputs, problem = text_inputs(ids, row.place, tokenizer, config)
        if label not in numbers:
            known = ", ".join(labels[:_MAX_NAMED]) + ("…" if len(labels) > _MAX_NAMED else "")
            problem = f"{row.place}: label {label!r} is not one that was trained on: {known}"
        if inputs is None and len(ids) and label in numbers and asked.too_long == "drop":
            made.dropped += 1
        elif inputs is None or problem:
            problems.append(problem or "")
        else:
            example = labelled_example(inputs, numbers[label], row.place)
            made.add(example, row, is_cut=len(inputs) < len(ids) + 1)
    refuse_examples(problems)
    return made


def labelled_example(inputs: Indices, label: int, place: str) -> Example:
    """Return an example whose label is the target at the last token."""
    targets = np.full(len(inputs), IGNORED, np.int64)
    targets[-1] = label
    return Example(inputs, targets, place)


def text_inputs(
    ids: Any, place: str, tokenizer: Tokenizer, config: Config, advice: str = _TOO_LONG
) -> tuple[Indices | None, str | None]:
    """Return a text's ids as classifier input, or a line that says why there are none."""
    context = config.model.context or 0
    if len(ids) == 0:
        return None, f"{place}: the text is empty; remove the row, or give it a text"
    fitted = fitting_examples(ids.astype(np.int64), context - 1, config)
    if fitted is None:
        return None, (
            f"{place}: {len(ids) + 1:,} tokens, and the model's context is {context:,}; shorten "
            f"the text{advice}"
        )
    return np.concatenate([[tokenizer.end_of_text], fitted]), None


class LabelTally:
    """The loss on labels, the number of correct ones, and the confusion matrix.

    Args:
        labels: their number.
        device: where the classifier is.
    """

    def __init__(self, labels: int, device: str) -> None:
        self._device = device
        self._nats = exact_zero(device)
        self._confusion = torch.zeros(labels, labels, dtype=torch.int64)

    def add(self, model: Any, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        labelled_BT = targets_BT != IGNORED
        targets_N = targets_BT[labelled_BT]
        logits_NK = model.label_logits(
            inputs_BT.to(self._device), labelled_BT.to(self._device)
        ).float()
        self._nats += F.cross_entropy(logits_NK, targets_N.to(self._device), reduction="sum")
        found_N = logits_NK.argmax(dim=-1).cpu()
        self._confusion.index_put_((targets_N, found_N), torch.ones_like(found_N), accumulate=True)

    def combine(self, world: World) -> None:
        self._nats = world.sum_(self._nats)
        counts = world.totals(*self._confusion.flatten().tolist())
        self._confusion = torch.tensor(counts).view_as(self._confusion)

    def measured(self) -> Measured:
        count = int(self._confusion.sum())
        right = int(self._confusion.diagonal().sum())
        matrix = tuple(tuple(row) for row in self._confusion.tolist())
        return Measured(
            float(self._nats) / count,
            count,
            accuracy=right / count,
            confusion=matrix if len(matrix) <= _MAX_CONFUSED else None,
        )
