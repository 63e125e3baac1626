"""Evaluation without side effects: no random number is drawn, no weight is touched.

Losses are weighted by tokens: the sum over all targets divided by their number, so that the result
does not depend on how the windows are batched.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hairpin.data.batches import IGNORED, Windows
from hairpin.training.numerics import Numerics


@dataclass(frozen=True)
class Measured:
    """A loss on a fixed set.

    Args:
        loss: mean nats per target token.
        bits_per_byte: the nats of all targets, in bits, over the bytes of text they stand for; an
            end-of-text costs bits and stands for no byte. Tokenizers can be compared by it.
        tokens: number of targets.
    """

    loss: float
    bits_per_byte: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that is beyond a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


class Evaluator:
    """A model's loss on fixed windows.

    Args:
        model: `forward(inputs, targets)` gives (sum of losses, number of targets).
        token_bytes: int [vocabulary], the bytes of text each token stands for.
        numerics: device and precision.
        sequences: windows in one forward pass; it changes memory and speed only.
        stopped: asked before each pass; once it is true the evaluation is given up.
    """

    def __init__(
        self,
        model: nn.Module,
        token_bytes: np.ndarray[tuple[int], np.dtype[np.int32]],
        numerics: Numerics,
        sequences: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._model = model
        self._token_bytes = token_bytes
        self._numerics = numerics
        self._sequences = sequences
        self._stopped = stopped

    @torch.no_grad()
    def measure(
        self, windows: Windows, on_progress: Callable[[int, int], None] | None = None
    ) -> Measured | None:
        """The loss on `windows`; None if it was given up."""
        device = self._numerics.device
        # Float64 where there is one: a long sum of float32 would depend on how it is batched.
        exact = torch.float32 if device == "mps" else torch.float64
        total = torch.zeros((), dtype=exact, device=device)
        count = torch.zeros((), dtype=torch.int64, device=device)
        text_bytes = done = 0
        with evaluating(self._model), self._numerics.autocast():
            for inputs, targets in windows.batches(self._sequences):
                if self._stopped():
                    return None
                loss_sum, tokens = self._model(inputs.to(device), targets.to(device))
                total += loss_sum
                count += tokens
                text_bytes += int(self._token_bytes[targets[targets != IGNORED].numpy()].sum())
                done += len(inputs)
                if on_progress:
                    on_progress(done, windows.count)
        nats, tokens_seen = float(total), int(count)
        bits = nats / math.log(2) / text_bytes if text_bytes else math.inf
        return Measured(nats / tokens_seen, bits, tokens_seen)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside; what was on before is on after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
