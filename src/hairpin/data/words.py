"""Byte-level merging by tiktoken, in the words that GPT-2's expression finds in a text.

It merges by the rank of the resulting bytes, and takes a twentieth of the memory of `tokenizers`.
For a vocabulary in the order in which it was learned that is the same as merging pair by pair: when
token T = (x, y) is learned, all text of T's bytes between cuts is split as x, y by the merges
before, so no other pair can make T.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

# GPT-2's expression as tiktoken writes it: the same words, with less backtracking.
_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_WHITE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


class Merging:
    """Text -> ranks of tokens.

    Args:
        name: of the vocabulary.
        tokens: the bytes of each rank.
    """

    def __init__(self, name: str, tokens: Sequence[bytes]) -> None:
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding(
            name, pat_str=_WORDS, mergeable_ranks=ranks, special_tokens={}
        )

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Return the ranks of a text, [tokens]."""
        try:
            return self._encoding.encode_to_numpy(text)
        except ValueError:
            # The expression backtracks through white space, and gives up on about a million.
            return np.concatenate([self._encoding.encode_to_numpy(part) for part in _tame(text)])


def _tame(text: str) -> Iterator[str]:
    r"""Yield the text cut before the last character of each long run of white space.

    The expression always splits there: `\s+(?!\S)` takes all of a run but its last character.
    """
    start = 0
    for run in re.finditer(rf"{_WHITE}{{1000,}}+", text):
        # A run at the very end is one word, and the expression matches it at once.
        if run.end() < len(text):
            yield text[start : run.end() - 1]
            start = run.end() - 1
    yield text[start:]
