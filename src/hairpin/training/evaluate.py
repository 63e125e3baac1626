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
from hairpin.distributed.world import World, reporting_lost_process
from hairpin.machine.numerics import Numerics

Batch = tuple[Tensor, Tensor]  # inputs and targets, int64 [B, T] each


@dataclass(frozen=True)
class Measured:
    """A loss on a fixed set.

    Args:
        loss: mean nats per target.
        tokens: number of targets.
        bits_per_byte: the nats of all targets, in bits, over the bytes of text they stand for; an
            end-of-text costs bits and stands for no byte. It is comparable between tokenizers.
            None where targets are labels.
        accuracy: the share of labels predicted correctly; None where targets are tokens.
        confusion: [i][j], number of targets of label i predicted as label j.
        sources: of a mixture, the result of each source.
    """

    loss: float
    tokens: int
    bits_per_byte: float | None = None
    accuracy: float | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    sources: Mapping[str, "Measured"] | None = None

    @property
    def bytes_per_token(self) -> float:
        """Mean bytes of text per target; 0 if unknown."""
        if not self.bits_per_byte or not math.isfinite(self.bits_per_byte):
            return 0.0
        return self.loss / math.log(2) / self.bits_per_byte

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite on overflow."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


class EvaluationSet(Protocol):
    """A fixed set to measure a loss on."""

    @property
    def count(self) -> int:
        """The number of sequences in the set."""
        ...

    def batches(self, sequences: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets, int64 [up to `sequences`, T]; missing targets are `IGNORED`."""
        ...


class Tally(Protocol):
    """Accumulator of one measurement, batch by batch."""

    def add(self, model: Any, inputs_BT: Tensor, targets_BT: Tensor) -> None:
        """Count a batch; its tensors are on the CPU."""
        ...

    def combine(self, world: World) -> None:
        """Add up the counts of all processes."""
        ...

    def measured(self) -> Measured:
        """Return the result; at least one target was counted."""
        ...


class TextTally:
    """The loss on text, in nats per token and bits per byte.

    Args:
        token_bytes: int [vocabulary], the bytes of text each token stands for.
        device: the model's device.
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
        model: one that the tally can measure.
        tally: makes one for each measurement.
        numerics: device and precision.
        sequences: of the set in one forward pass; it changes memory and speed only.
        stopped: called before each pass; once it is true the evaluation is abandoned.
        world: the processes that measure together, each a part of the set.
        begins: called as a measurement begins.
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
        """Return the loss on a set, for a mixture also by source; None if abandoned."""
        if isinstance(chosen, MixedWindows):
            return measure_mixture(chosen, self.measure, on_progress)
        self._begins()
        tally, done = self._tally(), 0
        with evaluating(self._model), self._numerics.autocast(), reporting_lost_process():
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
    """Yield batches in lists of `size`, the last of which may be shorter."""
    while together := list(islice(batches, size)):
        yield together


def _own(together: list[Batch], rank: int) -> Batch:
    """Return this process's batch; if none is left for it, one without targets: all processes must
    run the forward pass of a model that they share.
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
    """Return the loss on each source, and their mean weighted by the shares in training, whatever
    the sizes of the sets. None if it was abandoned.
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
    """Return a mixture's evaluation by source; null for values that are not finite."""
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
    """Return a scalar to sum in: float64 if the device has it, since a long float32 sum would
    depend on how it is batched.
    """
    return torch.zeros((), dtype=torch.float32 if device == "mps" else torch.float64, device=device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout off inside the block and restore it afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
