"""Search for verbatim matches of some pieces in a long text.

Every window of a given length in the text has a rolling hash (Karp and Rabin 1987), which is looked
up among those of the pieces' windows; matching hashes are compared byte by byte. The text is
searched part by part, so that memory is bounded for any length.

    search = VerbatimSearch([b"a piece", b"another"], shortest_bytes=5)
    for part in parts:            # each begins `search.overlap_bytes` before the last one's end
        search.search_in(HashedText(part))
    search.verbatim_bytes, search.longest
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

_Bytes = npt.NDArray[np.uint8]
_Hashes = npt.NDArray[np.uint64]
_Places = npt.NDArray[np.int64]

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 2**64)
_SYMBOLS = np.random.default_rng(1).integers(2**64, size=256, dtype=np.uint64)


class HashedText:
    """A text for which windows of any length can be hashed at once.

    With s(c) a random number for each byte, the hash of c₀ c₁ … is Σ s(cᵢ) · base^i modulo 2^64: a
    difference of two prefix sums, divided by a power of the base.

    Args:
        text: its bytes, each of which takes 8 bytes of memory here and 16 during construction.
    """

    def __init__(self, text: bytes) -> None:
        self.bytes: _Bytes = np.frombuffer(text, dtype=np.uint8)
        size = len(self.bytes)
        self._sums = np.zeros(size + 1, dtype=np.uint64)
        np.cumsum(_SYMBOLS[self.bytes] * _powers(_BASE, size), out=self._sums[1:])
        self._inverses = _powers(_INVERSE, size)

    def windows(self, length: int, at: _Places | None = None) -> _Hashes:
        """Return the hashes of the windows of `length` bytes at the places `at`; None: of all."""
        if at is None:
            count = max(0, len(self.bytes) - length + 1)
            return (self._sums[length:] - self._sums[:count]) * self._inverses[:count]
        return (self._sums[at + length] - self._sums[at]) * self._inverses[at]


class VerbatimSearch:
    """Search for stretches of some pieces in a text.

    Args:
        pieces: the texts to look for; a stretch lies within one of them.
        shortest_bytes: minimum length of a stretch, at least 1.
        wants_longest: search for `longest` too, which takes longer.

    Matches are exact to the byte. If two different windows shared one of the 2^64 hashes, only one
    of them would be searched for.
    """

    def __init__(
        self, pieces: Sequence[bytes], shortest_bytes: int, *, wants_longest: bool = True
    ) -> None:
        self._shortest, self._wants_longest = shortest_bytes, wants_longest
        self._text = HashedText(b"".join(pieces))
        self._bytes = self._text.bytes
        # Number of bytes of its piece from each byte on.
        left = [np.arange(len(piece), 0, -1) for piece in pieces]
        self._left: _Places = np.concatenate([*left, np.empty(0, dtype=np.int64)])
        self._longest = (0, 0)  # length, and place in all pieces
        self._by_length: dict[int, tuple[_Hashes, _Places]] = {}
        hashes, places = self._windows(shortest_bytes)
        self._hashes, first, kind = np.unique(hashes, return_index=True, return_inverse=True)
        self._found = np.zeros(len(self._hashes), dtype=bool)
        self._examples = places[first]  # one window per hash
        alike = np.ones(len(places), dtype=bool)
        if len(places):
            windows = sliding_window_view(self._bytes, shortest_bytes)
            alike = (windows[places] == windows[self._examples[kind]]).all(1)
        self._places, self._kind = places[alike], kind[alike]
        # These bits of a hash rule out most windows of a text as matches.
        bits = min(22, max(12, len(self._hashes).bit_length() + 6))
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=bool)
        self._table[self._hashes >> self._shift] = True

    @property
    def overlap_bytes(self) -> int:
        """The number of bytes that two parts of a text must share for no stretch to be cut."""
        return int(self._left.max(initial=0))

    @property
    def verbatim_bytes(self) -> int:
        """The number of bytes of the pieces that are in a stretch found so far."""
        edges = np.zeros(len(self._bytes) + 1, dtype=np.int64)
        starts = self._places[self._found[self._kind]]
        np.add.at(edges, starts, 1)
        np.add.at(edges, starts + self._shortest, -1)
        return int((edges.cumsum() > 0).sum())

    @property
    def longest(self) -> bytes:
        """The longest stretch found so far; empty: there is none."""
        length, place = self._longest
        return self._bytes[place : place + length].tobytes()

    def search_in(self, text: HashedText) -> None:
        """Search a text, or the next part of one."""
        hashes = text.windows(self._shortest)
        at = np.flatnonzero(self._table[hashes >> self._shift])
        at, which = _candidates_in(hashes[at], at, self._hashes)
        if len(at):
            self._mark(text, at, which)
            if self._wants_longest:
                self._extend_match(text, at)

    def _mark(self, text: HashedText, at: _Places, which: _Places) -> None:
        """Record which windows the text contains, given the places of matching hashes."""
        theirs = sliding_window_view(text.bytes, self._shortest)
        ours = sliding_window_view(self._bytes, self._shortest)
        is_open = ~self._found[which]
        while is_open.any():
            at, which = at[is_open], which[is_open]
            kinds, first = np.unique(which, return_index=True)
            same = theirs[at[first]] == ours[self._examples[kinds]]
            self._found[kinds[same.all(1)]] = True
            # A hash may belong to other bytes here, and to the right ones further on.
            is_open = ~self._found[which]
            is_open[first] = False

    def _extend_match(self, text: HashedText, at: _Places) -> None:
        """Search for a stretch longer than the longest so far at the places `at`. If there is none
        of n bytes there is none of n + 1, so lengths are tried in growing steps.
        """
        length = max(self._shortest - 1, self._longest[0])
        missed, step = self.overlap_bytes + 1, 1
        while length + 1 < missed:
            tried = min(length + step, missed - 1)
            place, there = self._place_of(text, at, tried)
            if place is None:
                missed, step = tried, 1
            else:
                length, at, step = tried, there, 2 * step
                self._longest = (length, place)

    def _place_of(self, text: HashedText, at: _Places, length: int) -> tuple[int | None, _Places]:
        """Return the place in the pieces of a stretch of `length` bytes that the text contains, and
        the places in the text where there may be any.
        """
        hashes, places = self._windows(length)
        at = at[at + length <= len(text.bytes)]
        at, which = _candidates_in(text.windows(length, at), at, hashes)
        for index in range(len(at)):
            begin, place = int(at[index]), int(places[which[index]])
            stretch = self._bytes[place : place + length]
            if np.array_equal(text.bytes[begin : begin + length], stretch):
                return place, at
        return None, at

    def _windows(self, length: int) -> tuple[_Hashes, _Places]:
        """Return hashes of all windows of the pieces, sorted, and their places in all pieces."""
        if length not in self._by_length:
            hashes = self._text.windows(length)
            places = np.flatnonzero(self._left[: len(hashes)] >= length)
            order = np.argsort(hashes[places], kind="stable")
            self._by_length[length] = hashes[places[order]], places[order]
        return self._by_length[length]


def _candidates_in(wanted: _Hashes, at: _Places, hashes: _Hashes) -> tuple[_Places, _Places]:
    """Return those of the places `at` whose hash is among `hashes`, and the index of the hash."""
    which = np.searchsorted(hashes, wanted)
    hit = hashes[np.minimum(which, len(hashes) - 1)] == wanted if len(hashes) else which < 0
    return at[hit], which[hit]


_kept_powers: dict[int, _Hashes] = {}


def _powers(base: int, count: int) -> _Hashes:
    """Return base^0, base^1, … modulo 2^64; cached, since every part of a text needs them."""
    kept = _kept_powers.get(base)
    if kept is None or len(kept) < count:
        kept = np.full(max(count, 1), base, dtype=np.uint64)
        kept[0] = 1
        _kept_powers[base] = kept = np.cumprod(kept, dtype=np.uint64)
    return kept[:count]
