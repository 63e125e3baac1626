"""What of some pieces stands word for word in a text, beside a search that tries everything."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.data import verbatim
from hairpin.data.verbatim import HashedText, VerbatimSearch


def by_trying_everything(pieces: list[bytes], text: bytes, shortest: int) -> tuple[int, int]:
    """Bytes of the pieces in stretches that the text has, and the length of the longest."""
    covered, longest = 0, 0
    for piece in pieces:
        inside: set[int] = set()
        for begin in range(len(piece)):
            for end in range(begin + shortest, len(piece) + 1):
                if piece[begin:end] in text:
                    inside.update(range(begin, end))
                    longest = max(longest, end - begin)
        covered += len(inside)
    return covered, longest


def found_in(pieces: list[bytes], parts: list[bytes], shortest: int) -> tuple[int, bytes]:
    search = VerbatimSearch(pieces, shortest)
    for part in parts:
        search.search_in(HashedText(part))
    return search.verbatim_bytes, search.longest


few_letters = st.text("ab", max_size=40).map(str.encode)
any_bytes = st.binary(max_size=30)


@given(st.lists(few_letters, max_size=4), st.text("abc", max_size=200), st.integers(1, 9))
def test_it_finds_what_trying_everything_finds(
    pieces: list[bytes], words: str, shortest: int
) -> None:
    text = words.encode()
    covered, longest = found_in(pieces, [text], shortest)
    assert (covered, len(longest)) == by_trying_everything(pieces, text, shortest)
    assert longest in text and any(longest in piece for piece in [*pieces, b""])


@given(any_bytes, any_bytes, any_bytes, st.integers(1, 5))
def test_a_stretch_of_any_bytes_is_found_wherever_it_stands(
    before: bytes, stretch: bytes, after: bytes, shortest: int
) -> None:
    pieces = [after + stretch, stretch + before]
    text = before + stretch + after
    covered, longest = found_in(pieces, [text], shortest)
    assert (covered, len(longest)) == by_trying_everything(pieces, text, shortest)


@given(
    st.lists(few_letters, min_size=1, max_size=3),
    few_letters,
    st.integers(1, 6),
    st.integers(1, 30),
)
def test_parts_that_overlap_give_what_the_whole_text_gives(
    pieces: list[bytes], text: bytes, shortest: int, size: int
) -> None:
    overlap = VerbatimSearch(pieces, shortest).overlap_bytes
    parts = [text[at : at + size + overlap] for at in range(0, len(text), size)]
    covered, longest = found_in(pieces, parts, shortest)
    assert (covered, len(longest)) == by_trying_everything(pieces, text, shortest)


def test_stretches_worked_out_by_hand() -> None:
    text = b"the cat sat on the mat and the dog ran"
    search = VerbatimSearch([b"a cat sat on a dog", b"the mat and then"], 5)
    assert search.overlap_bytes == 18
    search.search_in(HashedText(text))
    # " cat sat on " is 12 bytes; " dog" is too short; "the mat and the" is 15.
    assert search.verbatim_bytes == 12 + 15
    assert search.longest == b"the mat and the"
    search.search_in(HashedText(b"on a dog"))
    assert search.verbatim_bytes == 17 + 15, "the whole of ' cat sat on a dog' is covered"


def test_no_stretch_goes_from_one_piece_into_the_next() -> None:
    assert found_in([b"abcd", b"efgh"], [b"abcdefgh"], 5) == (0, b"")
    assert found_in([b"abcd", b"efgh"], [b"abcdefgh"], 4) == (8, b"abcd")


def test_without_pieces_or_text_nothing_is_found() -> None:
    assert found_in([], [b"abc"], 2) == found_in([b"", b"ab"], [b""], 2) == (0, b"")
    assert VerbatimSearch([], 3).overlap_bytes == 0


def test_hashes_that_are_all_the_same_lead_to_nothing_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verbatim, "_SYMBOLS", np.full(256, 7, dtype=np.uint64))
    draw = random.Random(3)
    for _ in range(30):
        piece, text = (bytes(draw.choices(b"ab", k=n)) for n in (12, 60))
        covered, longest = found_in([piece], [text], 6)
        most, most_long = by_trying_everything([piece], text, 6)
        assert covered <= most and len(longest) <= most_long
        assert longest in text and longest in piece


def test_a_megabyte_of_blanks_is_one_stretch() -> None:
    search = VerbatimSearch([b"x" + b" " * 300, b"y" * 300], 50)
    for _ in range(2):
        search.search_in(HashedText(b" " * 1_000_000))
    assert (search.verbatim_bytes, search.longest) == (300, b" " * 300)


def test_the_longest_is_looked_for_only_on_demand() -> None:
    search = VerbatimSearch([b"abcdef"], 3, wants_longest=False)
    search.search_in(HashedText(b"xabcdex"))
    assert (search.verbatim_bytes, search.longest) == (5, b"")
