import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.data.order import SampleOrder, permute

SEEDS = st.integers(0, 2**63 - 1)
WORD = 2**64


def splitmix64(state: int) -> int:
    """Steele, Lea and Flood 2014, as published by Vigna: the output after `state` is advanced."""
    z = (state + 0x9E3779B97F4A7C15) % WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def plain_place(place: int, samples: int, seed: int, epoch: int) -> int:
    """The permutation with Python's own integers: six Feistel rounds and cycle walking."""
    bits = max(1, ((samples - 1).bit_length() + 1) // 2)
    word = place
    while True:
        left, right = word >> bits, word % (1 << bits)
        for round_number in range(1, 7):
            key = splitmix64(splitmix64(7 * epoch + round_number) ^ seed)
            left, right = right, left ^ (splitmix64(right ^ key) % (1 << bits))
        word = (left << bits) | right
        if word < samples:
            return word


def test_the_mixing_function_is_the_published_one() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF


@given(samples=st.integers(1, 300), seed=SEEDS, epoch=st.integers(0, 10**6))
def test_the_order_is_the_one_that_plain_integers_give(samples: int, seed: int, epoch: int) -> None:
    places = np.arange(samples, dtype=np.int64)
    expected = [plain_place(place, samples, seed, epoch) for place in range(samples)]
    assert permute(places, samples, seed, epoch).tolist() == expected


@given(samples=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 2**40))
def test_each_epoch_is_a_permutation(samples: int, seed: int, epoch: int) -> None:
    epochs, indices = SampleOrder(samples, seed).at(epoch * samples, samples)
    assert sorted(indices.tolist()) == list(range(samples))
    assert set(epochs.tolist()) == {epoch}


@given(
    samples=st.integers(1, 200),
    seed=SEEDS,
    start=st.integers(0, 1000),
    pieces=st.lists(st.integers(1, 90), min_size=1, max_size=8),
)
def test_pieces_of_any_size_give_the_same_order(
    samples: int, seed: int, start: int, pieces: list[int]
) -> None:
    order = SampleOrder(samples, seed)
    whole = order.at(start, sum(pieces))
    position, got = start, []
    for piece in pieces:
        got.append(SampleOrder(samples, seed).at(position, piece))
        position += piece
    for part in (0, 1):
        assert np.concatenate([piece[part] for piece in got]).tolist() == whole[part].tolist()
    singly = [int(order.at(p, 1)[1][0]) for p in range(start, start + 5)]
    assert singly == order.at(start, 5)[1].tolist()


@given(samples=st.integers(1, 50), seed=SEEDS, position=st.integers(0, 1000))
def test_every_position_belongs_to_an_epoch_and_goes_by_its_permutation(
    samples: int, seed: int, position: int
) -> None:
    epochs, indices = SampleOrder(samples, seed).at(position, 30)
    for offset in range(30):
        epoch, place = divmod(position + offset, samples)
        assert int(epochs[offset]) == epoch
        assert int(indices[offset]) == plain_place(place, samples, seed, epoch)


def test_epochs_and_seeds_differ() -> None:
    orders = {
        tuple(permute(np.arange(60), 60, seed, epoch).tolist())
        for seed in (*range(20), 2**63 - 1, 2**62)
        for epoch in range(20)
    }
    assert len(orders) == 22 * 20
    assert tuple(range(60)) not in orders


def test_every_sample_comes_to_every_place_equally_often() -> None:
    samples, epochs = 40, 1500
    table = np.zeros((samples, samples))
    ascending = 0
    for epoch in range(epochs):
        indices = permute(np.arange(samples), samples, 3, epoch)
        table[np.arange(samples), indices] += 1
        ascending += int((np.diff(indices) == 1).sum())
    expected = epochs / samples
    chi_square = float((((table - expected) ** 2) / expected).sum())
    # 39 times 39 degrees of freedom, so 1521 ± 55 for a fair shuffle.
    assert abs(chi_square - 1521) < 4 * 55
    # A pair of neighbours is in ascending order by one in 39 of 40 · 39 cases, 39 times an epoch.
    fair = epochs * 39 * 39 / (40 * 39)
    assert abs(ascending - fair) < 4 * np.sqrt(fair)


def test_seeds_next_to_each_other_are_unrelated() -> None:
    samples = 500
    orders = [permute(np.arange(samples), samples, seed, 0) for seed in range(201)]
    equal = [int((one == other).sum()) for one, other in itertools.pairwise(orders)]
    assert 0.6 < np.mean(equal) < 1.4  # two unrelated permutations agree in one place on average


@given(seed=SEEDS, epoch=st.integers(0, 10**6), below=st.integers(1, 10**12))
def test_an_epochs_offset_is_in_range_and_stays(seed: int, epoch: int, below: int) -> None:
    offset = SampleOrder(5, seed).offset(epoch, below)
    assert 0 <= offset < below
    assert SampleOrder(99, seed).offset(epoch, below) == offset


def test_offsets_of_epochs_are_spread() -> None:
    offsets = np.array([SampleOrder(5, 1).offset(epoch, 1000) for epoch in range(2000)])
    counts = np.bincount(offsets // 100, minlength=10)
    assert float((((counts - 200) ** 2) / 200).sum()) < 27.9  # 9 degrees of freedom, 1 in 1000


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        SampleOrder(0, 1)
