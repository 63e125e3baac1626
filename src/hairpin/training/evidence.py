"""Evidence about an update that went wrong: its parameter, its samples and their text.

It costs a forward pass of each sample, draws no random number and touches no weight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hairpin.data.batches import IGNORED
from hairpin.machine.numerics import Numerics
from hairpin.training.evaluate import evaluating
from hairpin.training.step import StepResult
from hairpin.training.task import Samples

_PIECE_TOKENS = 32  # precision, in tokens, of a position in a sample
_EXCERPT_CHARACTERS = 200


@dataclass(frozen=True)
class Evidence:
    """Details of an update for an `events.Incident`."""

    update: int
    loss: float
    grad_norm: float
    parameter: str
    position: int
    samples: int
    excerpt: str


@dataclass(frozen=True)
class Examiner:
    """Examiner of updates that went wrong.

    Args:
        model: `forward(inputs, targets)` gives (sum of losses, number of targets).
        numerics: device and precision.
        batches: position → samples.
        decode: token ids → text.
    """

    model: nn.Module
    numerics: Numerics
    batches: Samples
    decode: Callable[[Sequence[int]], str]

    def examine(self, result: StepResult) -> Evidence:
        """Return the evidence; waits for the device."""
        norms = result.clipped.parameter_norms.tolist()
        names = [name for name, p in self.model.named_parameters() if p.grad is not None]
        return Evidence(
            update=result.update,
            loss=float(result.loss),
            grad_norm=float(result.clipped.norm),
            parameter=names[_worst(norms)],
            position=result.position,
            samples=result.samples,
            excerpt=self._excerpt(*self.batches.at(result.position, result.samples)),
        )

    @torch.no_grad()
    def _excerpt(self, inputs_BT: Tensor, targets_BT: Tensor) -> str:
        """Return text from the first non-finite or largest loss, with the current weights."""
        rows = [row for row in range(len(inputs_BT)) if (targets_BT[row] != IGNORED).any()]
        if not rows:
            return ""
        with evaluating(self.model), self.numerics.autocast():
            losses = [self._mean_loss(inputs_BT[row], targets_BT[row]) for row in rows]
            row = rows[_worst(losses)]
            start = self._worst_place(inputs_BT[row], targets_BT[row])
        end = int((targets_BT[row] != IGNORED).nonzero().max()) + 1
        text = self.decode(inputs_BT[row, start:end].tolist())
        return text.strip("\ufffd")[:_EXCERPT_CHARACTERS]  # a truncated character decodes to that

    def _worst_place(self, inputs_T: Tensor, targets_T: Tensor) -> int:
        """Return the start of the piece of a sample whose loss stands out; 0 if all targets are in
        one piece, such as a label, since they are about the text before them.
        """
        starts, losses = [], []
        for start in range(0, len(targets_T), _PIECE_TOKENS):
            end = start + _PIECE_TOKENS
            only = torch.full_like(targets_T, IGNORED)
            only[start:end] = targets_T[start:end]
            if (only != IGNORED).any():
                starts.append(start)
                losses.append(self._mean_loss(inputs_T, only))
        return starts[_worst(losses)] if len(starts) > 1 else 0

    def _mean_loss(self, inputs_T: Tensor, targets_T: Tensor) -> float:
        device = self.numerics.device
        loss_sum, count = self.model(inputs_T[None].to(device), targets_T[None].to(device))
        return float(loss_sum) / int(count)


def _worst(values: Sequence[float]) -> int:
    """Return the index of the first non-finite value, else of the largest."""
    for index, value in enumerate(values):
        if not math.isfinite(value):
            return index
    return max(range(len(values)), key=values.__getitem__)
