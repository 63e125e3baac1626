"""Search for validation text that is verbatim in the training text."""

import numpy as np
import numpy.typing as npt

from hairpin.data.checking.near import window_hashes

WINDOW_BYTES = 50
_STRIDE_BYTES = 25
_LEAST_KINDS = 12  # different bytes in a window: a row of dashes or spaces is no evidence
_TABLE_BITS = 24
_BLOCK_BYTES = 1 << 20


class Windows:
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
        hashes = window_hashes(content, WINDOW_BYTES)[::_STRIDE_BYTES][kinds >= _LEAST_KINDS]
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
