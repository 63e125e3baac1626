"""The order of training samples: a stateless permutation.

A run consumes samples at positions 0, 1, 2, …; every `samples` positions are one epoch. The sample
at a position is a pure function of (seed, position): nothing is shuffled in memory, nothing has to
be saved, and a run that resumes at position p sees exactly what an uninterrupted one sees there, on
any number of processes.

The permutation is a Feistel network over the smallest even number of bits that holds all indices,
applied again until the result is in range ("cycle walking"; Black and Rogaway 2002).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]
_ROUNDS = 6


@dataclass(frozen=True)
class SampleOrder:
    """The mapping from positions to samples.

    Args:
        samples: number of samples in an epoch, at least 1.
        seed: determines the order.
    """

    samples: int
    seed: int

    def __post_init__(self) -> None:
        """Reject an empty set."""
        if self.samples < 1:
            raise ValueError(f"the order needs at least one sample, not {self.samples}")

    def at(self, position: int, count: int) -> tuple[Indices, Indices]:
        """Return epochs and sample indices of `count` positions from `position` on."""
        positions = np.arange(position, position + count, dtype=np.int64)
        epochs, places = np.divmod(positions, self.samples)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            indices[chosen] = permute(places[chosen], self.samples, self.seed, int(epoch))
        return epochs, indices

    def offset(self, epoch: int, below: int) -> int:
        """Return a number in [0, below) that is fixed for the epoch."""
        return int(_mix(_keys(self.seed, epoch, 1))[0] % np.uint64(below))


def permute(places: Indices, samples: int, seed: int, epoch: int) -> Indices:
    """Map each place in [0, samples) through the permutation of (seed, epoch)."""
    half_bits = np.uint64(max(1, -(-max(1, (samples - 1).bit_length()) // 2)))
    keys = _keys(seed, epoch, _ROUNDS + 1)[1:]
    words = places.astype(np.uint64)
    outside = np.ones(words.shape, dtype=bool)
    while outside.any():
        words[outside] = _feistel(words[outside], half_bits, keys)
        outside = words >= np.uint64(samples)
    return words.astype(np.int64)


def _feistel(words: _Words, half_bits: np.uint64, keys: _Words) -> _Words:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = words >> half_bits, words & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half_bits) | right


def _keys(seed: int, epoch: int, count: int) -> _Words:
    counters = np.arange(count, dtype=np.uint64) + np.uint64(epoch) * np.uint64(_ROUNDS + 1)
    return _mix(_mix(counters) ^ np.uint64(seed))


def _mix(words: _Words) -> _Words:
    """Apply splitmix64's finaliser: every input bit changes about half of the output bits."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return words ^ (words >> np.uint64(31))
