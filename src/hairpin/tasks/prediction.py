"""Predictions of a classifier: the probability of each label, for each text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.data.order import Indices
from hairpin.data.tables.records import require_characters
from hairpin.data.tokenizers import Tokenizer
from hairpin.model.classifier import Classifier
from hairpin.tasks.classification import labelled_example, text_inputs
from hairpin.tasks.examples import collate, refuse_examples

_PREDICTED_AT_ONCE = 32


@dataclass(frozen=True)
class Prediction:
    """A classifier's prediction for a text.

    Args:
        label: the most probable one.
        probabilities: of every label, in the run's order.
        cut: whether the text was longer than the context and was cut.
    """

    label: str
    probabilities: dict[str, float]
    cut: bool = False

    @property
    def probability(self) -> float:
        """Probability of the label."""
        return self.probabilities[self.label]


def predict(
    model: Classifier,
    tokenizer: Tokenizer,
    config: Config,
    texts: Sequence[str],
    places: Sequence[str],
    device: str,
) -> list[Prediction]:
    """Return the label of each text.

    Args:
        model: the classifier.
        tokenizer, config: of its run.
        texts: to classify.
        places: their locations, for errors.
        device: where the model is.

    Raises:
        CorpusError: a text is empty, longer than the context, or not one that UTF-8 can hold.
    """
    for text, place in zip(texts, places, strict=True):
        require_characters(text, place)
    encoded = tokenizer.encode_batch(texts)
    found = [
        text_inputs(ids, place, tokenizer, config, advice="")
        for ids, place in zip(encoded, places, strict=True)
    ]
    refuse_examples([problem for _, problem in found if problem])
    inputs = [ids for ids, _ in found if ids is not None]
    labels = config.finetune.labels
    return [
        Prediction(
            labels[int(np.argmax(row))],
            dict(zip(labels, row, strict=True)),
            cut=len(seen) < len(ids) + 1,  # an end-of-text comes first
        )
        for row, seen, ids in zip(
            probabilities(model, inputs, device), inputs, encoded, strict=True
        )
    ]


@torch.no_grad()
def probabilities(
    model: Classifier, inputs: Sequence[Indices], device: str
) -> Iterator[list[float]]:
    """Yield the probabilities of all labels for each text's ids."""
    for first in range(0, len(inputs), _PREDICTED_AT_ONCE):
        batch = [labelled_example(ids, 0, "") for ids in inputs[first:][:_PREDICTED_AT_ONCE]]
        inputs_BT, targets_BT = collate(batch)
        logits_BK = model.label_logits(inputs_BT.to(device), (targets_BT != IGNORED).to(device))
        yield from torch.softmax(logits_BK.cpu().double(), dim=-1).tolist()
