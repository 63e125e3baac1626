"""From a stream of tokens to (inputs, targets): training batches and evaluation windows.

The training stream is a ring: each document is preceded by an end-of-text, so that the join of its
end and its beginning is a boundary like any other. An epoch cuts the ring into windows of one
context each, starting at a place of its own, so that later epochs see other cuts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hairpin.data.order import Indices, SampleOrder

IGNORED = -100  # a target with this value is no target: torch's own convention


class Tokens(Protocol):
    """A ring of token ids."""

    def __len__(self) -> int: ...

    def read(self, start: int, count: int) -> Indices:
        """`count` ids from `start` on, going round at the end."""
        ...


class Batches:
    """Training batches as a pure function of (seed, position).

    Args:
        tokens: the training stream, longer than `context`.
        context: T, tokens in a sample.
        seed: of the order.
    """

    def __init__(self, tokens: Tokens, context: int, seed: int) -> None:
        self.context = context
        self.samples = len(tokens) // context
        self._tokens = tokens
        self._order = SampleOrder(self.samples, seed)

    def starts(self, position: int, count: int) -> Indices:
        """Where in the stream the samples at `count` positions begin."""
        epochs, indices = self._order.at(position, count)
        offsets = [self._order.offset(int(epoch), len(self._tokens)) for epoch in epochs]
        return (indices * self.context + np.asarray(offsets, dtype=np.int64)) % len(self._tokens)

    def where(self, position: int, count: int) -> str:
        """Where in the text these samples are, in words."""
        return f"training tokens {self.starts(position, count)[0]} and on"

    def at(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the samples at `count` positions, int64 [count, T] each."""
        windows = np.stack(
            [self._tokens.read(int(s), self.context + 1) for s in self.starts(position, count)]
        )
        ids = torch.from_numpy(windows)
        return ids[:, :-1], ids[:, 1:]


@dataclass(frozen=True)
class Windows:
    """A fixed evaluation set: windows of one context, spread evenly over a stream.

    With all windows every token but the stream's first is a target exactly once.

    Args:
        tokens: the stream, at least 2 tokens.
        context: T, tokens in a window.
        most_tokens: take about this many targets; None: all.
    """

    tokens: Tokens
    context: int
    most_tokens: int | None = None

    @property
    def available(self) -> int:
        """Windows in the whole stream, the last of which may be short."""
        return -(-(len(self.tokens) - 1) // self.context)

    @property
    def count(self) -> int:
        """Windows in this set."""
        if self.most_tokens is None:
            return self.available
        return max(1, min(self.available, self.most_tokens // self.context))

    def batches(self, sequences: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets, int64 [up to `sequences`, T]; missing targets are `IGNORED`."""
        chosen = [window * self.available // self.count for window in range(self.count)]
        for first in range(0, len(chosen), sequences):
            ids = torch.from_numpy(np.stack([self._read(w) for w in chosen[first:][:sequences]]))
            # A filled place must be a legal input; nothing behind it is a target, so 0 will do.
            yield ids[:, :-1].clamp(min=0), ids[:, 1:]

    def _read(self, window: int) -> Indices:
        start = window * self.context
        count = min(self.context + 1, len(self.tokens) - start)
        filled = np.full(self.context + 1, IGNORED, dtype=np.int64)
        filled[:count] = self.tokens.read(start, count)
        return filled
