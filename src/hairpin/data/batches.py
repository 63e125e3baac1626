"""Training batches and evaluation windows, as (inputs, targets) from a stream of tokens.

The training stream is a ring: each document is preceded by an end-of-text, so that the wrap from
its end to its beginning is a boundary like any other. An epoch cuts the ring into windows of one
context each, starting at an offset of its own, so that later epochs see other cuts.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hairpin.data.mixture import Mixture
from hairpin.data.order import Indices, SampleOrder

IGNORED = -100  # marks a position without a target: torch's own convention


class Tokens(Protocol):
    """A ring of token ids."""

    def __len__(self) -> int: ...

    def read(self, start: int, count: int) -> Indices:
        """Return `count` ids from `start` on, wrapping around at the end."""
        ...


class Batches:
    """Training batches as a pure function of (seed, position).

    Args:
        tokens: the training stream, longer than `context`.
        context: T, tokens in a sample.
        seed: determines the order.
    """

    def __init__(self, tokens: Tokens, context: int, seed: int) -> None:
        self.context = context
        self.samples = len(tokens) // context
        self._tokens = tokens
        self._order = SampleOrder(self.samples, seed)

    def starts(self, position: int, count: int) -> Indices:
        """Return where in the stream the samples at `count` positions begin."""
        epochs, indices = self._order.at(position, count)
        offsets = [self._order.offset(int(epoch), len(self._tokens)) for epoch in epochs]
        return (indices * self.context + np.asarray(offsets, dtype=np.int64)) % len(self._tokens)

    def where(self, position: int, count: int) -> str:
        """Describe where in the text these samples are."""
        return f"training tokens {self.starts(position, count)[0]} and on"

    def at(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of the samples at `count` positions, int64 [count, T] each."""
        windows = np.stack([self.window(int(start)) for start in self.starts(position, count)])
        ids = torch.from_numpy(windows)
        return ids[:, :-1], ids[:, 1:]

    def window(self, start: int) -> Indices:
        """Return the ids of the sample that begins at `start`, and the next id, int64 [T + 1]."""
        return self._tokens.read(start, self.context + 1)


class MixedBatches:
    """Training batches of several sources, as a pure function of (seed, position).

    Each source has an order of its own, with epochs and cuts of its own.

    Args:
        sources: name → its training stream, longer than `context`.
        mixture: position → source, in the order of `sources`.
        context: T, tokens in a sample.
        seed: of all orders.
    """

    def __init__(
        self, sources: Mapping[str, Tokens], mixture: Mixture, context: int, seed: int
    ) -> None:
        self.names = tuple(sources)
        self._mixture = mixture
        self._batches = [
            Batches(tokens, context, source_seed(seed, name)) for name, tokens in sources.items()
        ]

    def starts(self, position: int, count: int) -> tuple[Indices, Indices]:
        """Return source and start in its stream for each of the samples at `count` positions."""
        places = [self._mixture.at(each) for each in range(position, position + count)]
        sources = np.array([source for source, _ in places], dtype=np.int64)
        indices = np.array([index for _, index in places], dtype=np.int64)
        starts = np.empty(count, dtype=np.int64)
        for source in np.unique(sources):
            chosen = sources == source  # positions of a source are consecutive in its own order
            first = int(indices[chosen][0])
            starts[chosen] = self._batches[source].starts(first, int(chosen.sum()))
        return sources, starts

    def where(self, position: int, count: int) -> str:
        """Describe where in the text these samples are."""
        sources, starts = self.starts(position, count)
        firsts = {
            self.names[s]: int(start) for s, start in zip(sources[::-1], starts[::-1], strict=True)
        }
        places = [f"{firsts[name]} of {name}" for name in self.names if name in firsts]
        return f"training tokens {', '.join(places)} and on"

    def at(self, position: int, count: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of the samples at `count` positions, int64 [count, T] each."""
        windows = np.stack(
            [
                self._batches[source].window(int(start))
                for source, start in zip(*self.starts(position, count), strict=True)
            ]
        )
        ids = torch.from_numpy(windows)
        return ids[:, :-1], ids[:, 1:]


def source_seed(seed: int, name: str) -> int:
    """Return the seed of a source's own order."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Windows:
    """A fixed evaluation set: windows of one context, spread evenly over a stream.

    With all windows every token but the stream's first is a target exactly once.

    Args:
        tokens: the stream, at least 2 tokens.
        context: T, tokens in a window.
        most_tokens: approximate number of targets; None: all.
    """

    tokens: Tokens
    context: int
    most_tokens: int | None = None

    @property
    def available(self) -> int:
        """The number of windows in the whole stream; the last may be short."""
        return -(-(len(self.tokens) - 1) // self.context)

    @property
    def count(self) -> int:
        """The number of windows in this set."""
        if self.most_tokens is None:
            return self.available
        return max(1, min(self.available, self.most_tokens // self.context))

    def batches(self, sequences: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs and targets, int64 [up to `sequences`, T]; missing targets are `IGNORED`."""
        chosen = [window * self.available // self.count for window in range(self.count)]
        for first in range(0, len(chosen), sequences):
            ids = torch.from_numpy(np.stack([self._read(w) for w in chosen[first:][:sequences]]))
            # Padding must be a legal input; no target follows it, so 0 will do.
            yield ids[:, :-1].clamp(min=0), ids[:, 1:]

    def _read(self, window: int) -> Indices:
        start = window * self.context
        count = min(self.context + 1, len(self.tokens) - start)
        filled = np.full(self.context + 1, IGNORED, dtype=np.int64)
        filled[:count] = self.tokens.read(start, count)
        return filled


@dataclass(frozen=True)
class MixedWindows:
    """The evaluation sets of a mixture, measured one after the other.

    Args:
        parts: source → its set, each with the same number of tokens if its source has as many.
        shares: of each source in training; the overall loss is the mean weighted by these.
    """

    parts: Mapping[str, Windows]
    shares: Mapping[str, float]

    @property
    def count(self) -> int:
        """The number of windows in all sets."""
        return sum(part.count for part in self.parts.values())

    def batches(self, sequences: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of each source, one source after the other."""
        for part in self.parts.values():
            yield from part.batches(sequences)


def windows_of(
    sources: Mapping[str, Tokens], shares: Mapping[str, float], context: int, most: int | None
) -> MixedWindows:
    """Build evaluation sets with a given total of targets, the same number for each source.

    Args:
        sources, shares: of the mixture.
        context: T, tokens in a window.
        most: approximate total number of targets; None: all.
    """
    each = None if most is None else max(1, most // len(sources))
    return MixedWindows(
        {name: Windows(tokens, context, each) for name, tokens in sources.items()}, shares
    )
