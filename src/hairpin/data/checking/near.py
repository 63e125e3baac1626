"""Near-duplicate documents: MinHash over windows of bytes, with banding.

The share of their windows that two documents have in common (their Jaccard similarity) is the
probability that both have the same smallest hash (Broder 1997). The hashes of a document are
distributed over 128 bins, and the smallest of each is kept (one permutation hashing, Li et al.
2012), so that a document is read once and takes half a kilobyte. Documents that agree in a band of
4 bins are compared (Leskovec et al., Mining of Massive Datasets, chapter 3): from a similarity of
0.8 on practically all are found.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint32]

SHINGLE_BYTES = 16
BINS = 128
_BAND = 4
_BLOCK_BYTES = 1 << 20
WINDOW_BYTES = 50
_STRIDE_BYTES = 25
_MIN_KINDS = 12  # different bytes in a window: a row of dashes or spaces is no evidence
_TABLE_BITS = 24
_BASE = np.uint64(0x9E3779B97F4A7C15)
EMPTY = np.uint32(0xFFFFFFFF)


def window_hashes(text: npt.NDArray[np.uint8], window_bytes: int) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each window of `window_bytes` bytes; empty for a shorter text.

    Polynomials of halves are combined into those of wholes: 50 bytes take ten passes, not 50.
    """
    count = len(text) - window_bytes + 1
    if count <= 0:
        return np.array([], np.uint64)
    power, power_bytes, factor = text.astype(np.uint64), 1, int(_BASE)
    total: npt.NDArray[np.uint64] | None = None
    total_bytes, left = 0, window_bytes
    while left:
        if left & 1:
            if total is None:
                total = power
            else:  # the window combined so far, then this power's window
                count_now = len(text) - total_bytes - power_bytes + 1
                later = power[total_bytes : total_bytes + count_now]
                total = total[:count_now] * np.uint64(factor) + later
            total_bytes += power_bytes
        left >>= 1
        if left:
            power = power[:-power_bytes] * np.uint64(factor) + power[power_bytes:]
            factor, power_bytes = factor * factor % 2**64, 2 * power_bytes
    assert total is not None
    return _mixed(total[:count])


def _mixed(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread each number's bits over all of it (the end of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


class Signature:
    """The smallest hash of each bin, for a document that comes in pieces."""

    def __init__(self) -> None:
        self.least: Hashes = np.full(BINS, EMPTY, np.uint32)
        self._rest = b""

    def add(self, text: bytes) -> None:
        """Add the next piece."""
        content = np.frombuffer(self._rest + text, np.uint8)
        for start in range(0, len(content), _BLOCK_BYTES):
            block = content[start : start + _BLOCK_BYTES + SHINGLE_BYTES - 1]
            hashes = window_hashes(block, SHINGLE_BYTES)
            bins = (hashes % np.uint64(BINS)).astype(np.intp)
            np.minimum.at(self.least, bins, (hashes >> np.uint64(32)).astype(np.uint32))
        self._rest = content[-(SHINGLE_BYTES - 1) :].tobytes()


def similarity(one: Hashes, other: Hashes) -> float:
    """Return the share of bins that agree, of those either document fills: Jaccard's, ± 0.04."""
    filled = (one != EMPTY) | (other != EMPTY)
    return float((one == other)[filled].mean()) if filled.any() else 0.0


def similar_groups(signatures: Sequence[Hashes], least: float) -> list[list[int]]:
    """Return groups of documents linked by a chain of similarities of at least `least`; documents
    of fewer than `SHINGLE_BYTES` bytes are in none.
    """
    if not signatures:
        return []
    table = np.stack(signatures)
    groups = _Groups(len(table))
    for first in range(0, BINS, _BAND):
        band = np.ascontiguousarray(table[:, first : first + _BAND])
        alive = np.flatnonzero((band != EMPTY).any(1))
        if len(alive) < 2:
            continue
        _, inverse, counts = np.unique(band[alive], axis=0, return_inverse=True, return_counts=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        for members in np.split(alive[order], np.cumsum(counts)[:-1]):
            # Compare each with the first of its band and with the one before it, not with all.
            for before, member in pairwise(members):
                for other in {int(members[0]), int(before)}:
                    if groups.root(other) != groups.root(int(member)) and (
                        similarity(table[other], table[member]) >= least
                    ):
                        groups.join(other, int(member))
    return groups.larger_than_one()


class _Groups:
    """Disjoint sets of members, each represented by its first."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def root(self, member: int) -> int:
        while self._above[member] != member:
            self._above[member] = self._above[self._above[member]]
            member = self._above[member]
        return member

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._above[high] = low

    def larger_than_one(self) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for member in range(len(self._above)):
            found.setdefault(self.root(member), []).append(member)
        return [members for members in found.values() if len(members) > 1]


# --- validation text that is verbatim in the training text ---


class SharedWindows:
    """Windows of validation text, and those that are in the training text too.

    First pass all validation text to `want`, then all training text to `search`.
    """

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._owners: list[int] = []
        self._wanted = np.array([], np.uint64)
        self._found = np.array([], np.bool_)
        self._table = np.array([], np.bool_)
        self._rest = b""

    def want(self, text: bytes, document: int) -> None:
        """Add a piece of validation text: a window every 25 bytes."""
        content = np.frombuffer(text, np.uint8)
        if len(content) < WINDOW_BYTES:
            return
        views = np.lib.stride_tricks.sliding_window_view(content, WINDOW_BYTES)[::_STRIDE_BYTES]
        kinds = (np.diff(np.sort(views, axis=1), axis=1) > 0).sum(1) + 1
        hashes = window_hashes(content, WINDOW_BYTES)[::_STRIDE_BYTES][kinds >= _MIN_KINDS]
        self._hashes.append(hashes)
        self._owners += [document] * len(hashes)

    def begin_search(self) -> None:
        """Prepare the search, once all validation text was added."""
        hashes = np.concatenate([np.array([], np.uint64), *self._hashes])
        self._wanted = np.unique(hashes)
        self._found = np.zeros(len(self._wanted), np.bool_)
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
        self._table[self._wanted & np.uint64((1 << _TABLE_BITS) - 1)] = True

    def search(self, text: bytes, *, opens: bool) -> None:
        """Search a piece of training text; `opens` if it does not continue the one before."""
        if not len(self._wanted):
            return
        content = np.frombuffer(text if opens else self._rest + text, np.uint8)
        for start in range(0, len(content), _BLOCK_BYTES):
            hashes = window_hashes(
                content[start : start + _BLOCK_BYTES + WINDOW_BYTES - 1], WINDOW_BYTES
            )
            likely = hashes[self._table[hashes & np.uint64((1 << _TABLE_BITS) - 1)]]
            places = np.searchsorted(self._wanted, likely).clip(max=len(self._wanted) - 1)
            self._found[places[self._wanted[places] == likely]] = True
        self._rest = content[-(WINDOW_BYTES - 1) :].tobytes()

    def result(self) -> tuple[int, int, dict[int, tuple[int, int]]]:
        """Return the number of windows, how many training text has, and both for each document."""
        hashes = np.concatenate([np.array([], np.uint64), *self._hashes])
        if not len(hashes):
            return 0, 0, {}
        hit = self._found[np.searchsorted(self._wanted, hashes)]
        owners = np.array(self._owners)
        kinds, places = np.unique(owners, return_inverse=True)
        all_, hits = np.bincount(places), np.bincount(places, weights=hit).astype(int)
        each = {
            int(kind): (int(count), int(found))
            for kind, count, found in zip(kinds, all_, hits, strict=True)
        }
        return len(hashes), int(hit.sum()), each
