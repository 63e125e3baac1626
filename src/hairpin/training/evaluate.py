"""Evaluation without side effects: no random number is drawn, no weight is touched.

Losses are weighted by targets: the sum over all of them divided by their number, so that the result
does not depend on how a set is batched.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hairpin.data.batches import IGNORED
from hairpin.distributed.world import World, noticing_losses
from hairpin.training.numerics import Numerics

Batch = tuple[Tensor, Tensor]  # inputs and targets, int64 [B, T] each


@dataclass(frozen=True)
class Measured:
    """A loss on a fixed set.

    Args:
        loss: mean nats per target.
        tokens: number of targets.
        bits_per_byte: the nats of all targets, in bits, over the bytes of text they stand for; an
            end-of-text costs bits and stands for no byte. Tokenizers can be compared by it. None
            where targets are labels.
        accuracy: the share of labels that were right; None where targets are tokens.
        confusion: [i][j], how many targets of label i were taken for label j.
    """

    loss: float
    tokens: int
    bits_per_byte: float | None = None
    accuracy: float | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that is beyond a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


class EvaluationSet(Protocol):
    """A fixed set to measure a loss on."""

    @property
    def count(self) -> int:
        """Sequences in the set."""
        ...

    def batches(self, sequences: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, int64 [up to `sequences`, T]; missing targets are `IGNORED`."""
        ...


class Tally(Protocol):
    """Adds up one measurement, batch by batch."""

    def add(self, model: Any, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        """Count a batch; its tensors are on the CPU."""
        ...

    def combine(self, world: World) -> None:
        """Add up what all processes have counted."""
        ...

    def measured(self) -> Measured:
        """What it comes to; at least one target was counted."""
        ...


class TextTally:
    """The loss on text, in nats per token and bits per byte.

    Args:
        token_bytes: int [vocabulary], the bytes of text each token stands for.
        device: where the model is.
    """

    def __init__(
        self, token_bytes: np.ndarray[tuple[int], np.dtype[np.int32]], device: str
    ) -> None:
        self._token_bytes = token_bytes
        self._device = device
        self._nats = exact_zero(device)
        self._tokens = torch.zeros((), dtype=torch.int64, device=device)
        self._bytes = 0

    def add(self, model: Any, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        loss_sum, tokens = model(inputs_BT.to(self._device), targets_BT.to(self._device))
        self._nats += loss_sum
        self._tokens += tokens
        self._bytes += int(self._token_bytes[targets_BT[targets_BT != IGNORED].numpy()].sum())

    def combine(self, world: World) -> None:
        self._nats = world.sum_(self._nats)
        self._tokens = world.sum_(self._tokens)
        (self._bytes,) = world.totals(self._bytes)

    def measured(self) -> Measured:
        nats, tokens = float(self._nats), int(self._tokens)
        bits = nats / math.log(2) / self._bytes if self._bytes else math.inf
        return Measured(nats / tokens, tokens, bits_per_byte=bits)


class Evaluator:
    """A model's loss on a fixed set.

    Args:
        model: what the tally knows to measure.
        tally: makes one for each measurement.
        numerics: device and precision.
        sequences: of the set in one forward pass; it changes memory and speed only.
        stopped: asked before each pass; once it is true the evaluation is given up.
        world: the processes that measure together, each some of the set.
    """

    def __init__(
        self,
        model: nn.Module,
        tally: Callable[[], Tally],
        numerics: Numerics,
        sequences: int,
        stopped: Callable[[], bool] = lambda: False,
        world: World | None = None,
    ) -> None:
        self._model = model
        self._world = world or World()
        self._tally = tally
        self._numerics = numerics
        self._sequences = sequences
        self._stopped = stopped

    @torch.no_grad()
    def measure(
        self, chosen: EvaluationSet, on_progress: Callable[[int, int], None] | None = None
    ) -> Measured | None:
        """The loss on a set; None if it was given up."""
        tally, done = self._tally(), 0
        with evaluating(self._model), self._numerics.autocast(), noticing_losses():
            for together in _in_turns(chosen.batches(self._sequences), self._world.size):
                if self._stopped():
                    return None
                tally.add(self._model, *_own(together, self._world.rank))
                done += sum(len(inputs) for inputs, _ in together)
                if on_progress:
                    on_progress(done, chosen.count)
            tally.combine(self._world)
        return tally.measured()


def _in_turns(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """Batches in lists of `size`, the last of which may be shorter."""
    while together := list(islice(batches, size)):
        yield together


def _own(together: list[Batch], rank: int) -> Batch:
    """This process's batch; where there is none left for it, one without targets: all processes
    have to pass through a model that they share.
    """
    if rank < len(together):
        return together[rank]
    inputs, targets = together[0]
    return inputs, torch.full_like(targets, IGNORED)


def exact_zero(device: str) -> Tensor:
    """A scalar to sum in: float64 where there is one, since a long sum of float32 would depend on
    how it is batched.
    """
    return torch.zeros((), dtype=torch.float32 if device == "mps" else torch.float64, device=device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside; what was on before is on after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
