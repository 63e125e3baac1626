"""Evaluation without side effects: no random number is drawn, no weight is touched.

Losses are weighted by targets: the sum over all of them divided by their number, so that the result
does not depend on how a set is batched.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hairpin.data.batches import IGNORED, MixedWindows
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
        sources: of a mixture, each source's own.
    """

    loss: float
    tokens: int
    bits_per_byte: float | None = None
    accuracy: float | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    sources: Mapping[str, "Measured"] | None = None

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text that a target stands for; 0 where that is not known."""
        if not self.bits_per_byte or not math.isfinite(self.bits_per_byte):
            return 0.0
        return self.loss / math.log(2) / self.bits_per_byte

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
        begins: called where a measurement begins.
    """

    def __init__(
        self,
        model: nn.Module,
        tally: Callable[[], Tally],
        numerics: Numerics,
        sequences: int,
        stopped: Callable[[], bool] = lambda: False,
        world: World | None = None,
        begins: Callable[[], None] = lambda: None,
    ) -> None:
        self._model = model
        self._begins = begins
        self._world = world or World()
        self._tally = tally
        self._numerics = numerics
        self._sequences = sequences
        self._stopped = stopped

    @torch.no_grad()
    def measure(
        self, chosen: EvaluationSet, on_progress: Callable[[int, int], None] | None = None
    ) -> Measured | None:
        """The loss on a set, of a mixture that of each source too; None if it was given up."""
        if isinstance(chosen, MixedWindows):
            return measure_mixture(chosen, self.measure, on_progress)
        self._begins()
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


def measure_mixture(
    chosen: MixedWindows,
    measure: Callable[..., Measured | None],
    on_progress: Callable[[int, int], None] | None = None,
) -> Measured | None:
    """The loss on each source, and their mean by the shares in training: that of a token as it is
    drawn there, whatever the sizes of the sets. None if it was given up.
    """
    sources: dict[str, Measured] = {}
    done = 0
    for name, part in chosen.parts.items():

        def report(of_part: int, _: int, before: int = done) -> None:
            if on_progress:
                on_progress(before + of_part, chosen.count)

        found = measure(part, report)
        if found is None:
            return None
        sources[name] = found
        done += part.count
    shares = chosen.shares
    loss = sum(shares[name] * found.loss for name, found in sources.items())
    text_bytes = sum(shares[name] * found.bytes_per_token for name, found in sources.items())
    return Measured(
        loss,
        sum(found.tokens for found in sources.values()),
        bits_per_byte=loss / math.log(2) / text_bytes if text_bytes else math.inf,
        sources=sources,
    )


def by_source(train: Measured, val: Measured) -> dict[str, dict[str, float | None]] | None:
    """What the evaluation of a mixture says of each source; null is what is not finite."""
    if train.sources is None or val.sources is None:
        return None
    values = {
        name: {
            "train_loss": train.sources[name].loss,
            "val_loss": found.loss,
            "val_bits_per_byte": found.bits_per_byte,
        }
        for name, found in val.sources.items()
    }
    return {
        name: {key: n if n is not None and math.isfinite(n) else None for key, n in each.items()}
        for name, each in values.items()
    }


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
