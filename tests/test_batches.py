import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hairpin.data.batches import IGNORED, Batches, Windows
from helpers import Ring

SEEDS = st.integers(0, 2**63 - 1)


def counting(length: int) -> Ring:
    """A stream in which every token is its own place."""
    return Ring(np.arange(length))


@given(context=st.integers(1, 20), more=st.integers(1, 300), seed=SEEDS, epoch=st.integers(0, 50))
def test_an_epoch_covers_the_ring_once_but_for_less_than_a_context(
    context: int, more: int, seed: int, epoch: int
) -> None:
    length = context + more
    batches = Batches(counting(length), context, seed)
    inputs, targets = batches.at(epoch * batches.samples, batches.samples)
    seen = inputs.flatten().tolist()
    assert len(set(seen)) == len(seen) > length - context
    assert len(set(targets.flatten().tolist())) == len(seen)


@given(context=st.integers(1, 20), more=st.integers(1, 100), seed=SEEDS, start=st.integers(0, 500))
def test_targets_are_the_tokens_that_follow(context: int, more: int, seed: int, start: int) -> None:
    length = context + more
    inputs, targets = Batches(counting(length), context, seed).at(start, 5)
    assert inputs.shape == targets.shape == (5, context)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, (inputs + 1) % length)
    first = inputs[:, :1]
    assert torch.equal(inputs, (first + torch.arange(context)) % length)


@given(seed=SEEDS, start=st.integers(0, 300), pieces=st.lists(st.integers(1, 9), min_size=1))
def test_a_run_that_goes_on_in_the_middle_sees_the_same_batches(
    seed: int, start: int, pieces: list[int]
) -> None:
    stream = counting(97)
    whole = Batches(stream, 4, seed).at(start, sum(pieces))[0]
    position, got = start, []
    for piece in pieces:
        got.append(Batches(stream, 4, seed).at(position, piece)[0])
        position += piece
    assert torch.equal(torch.cat(got), whole)


def test_batches_say_where_they_begin() -> None:
    batches = Batches(counting(50), 7, seed=3)
    inputs, _ = batches.at(2, 30)
    assert batches.starts(2, 30).tolist() == inputs[:, 0].tolist()


def test_epochs_cut_the_stream_elsewhere() -> None:
    batches = Batches(counting(1000), 10, seed=3)
    cuts = {int(batches.starts(epoch * batches.samples, 1)[0]) % 10 for epoch in range(120)}
    assert len(cuts) == 10


def test_a_batch_across_two_epochs_takes_the_end_of_one_and_the_start_of_the_next() -> None:
    batches = Batches(counting(30), 4, seed=3)  # 7 samples
    inputs, _ = batches.at(5, 4)
    assert torch.equal(inputs[:2], batches.at(5, 2)[0])
    assert torch.equal(inputs[2:], batches.at(7, 2)[0])


# --- evaluation windows ---


@given(length=st.integers(2, 200), context=st.integers(1, 30), sequences=st.integers(1, 7))
def test_every_token_but_the_first_is_a_target_once(
    length: int, context: int, sequences: int
) -> None:
    windows = Windows(counting(length), context)
    targets_seen: list[int] = []
    rows = 0
    for inputs, targets in windows.batches(sequences):
        rows += len(inputs)
        assert len(inputs) <= sequences
        valid = targets != IGNORED
        assert torch.equal(inputs[valid] + 1, targets[valid])  # each after the token before it
        assert inputs.min() >= 0
        targets_seen += targets[valid].tolist()
    assert sorted(targets_seen) == list(range(1, length))
    assert rows == windows.count


def test_a_subset_is_spread_evenly_by_hand() -> None:
    # 101 tokens in contexts of 10: 10 windows, of which 40 tokens pay for 4.
    windows = Windows(counting(101), 10, most_tokens=40)
    ((inputs, _),) = windows.batches(100)
    assert inputs[:, 0].tolist() == [0, 20, 50, 70]


@given(length=st.integers(2, 500), context=st.integers(1, 30), most_tokens=st.integers(1, 700))
def test_a_subset_is_fixed_distinct_and_even(length: int, context: int, most_tokens: int) -> None:
    windows = Windows(counting(length), context, most_tokens)
    starts = [int(i) for inputs, _ in windows.batches(3) for i in inputs[:, 0]]
    again = [int(i) for inputs, _ in windows.batches(64) for i in inputs[:, 0]]
    assert starts == again
    assert len(set(starts)) == len(starts) == windows.count
    assert windows.count == max(1, min(most_tokens // context, -(-(length - 1) // context)))
    gaps = np.diff([*starts, windows.available * context]) // context
    assert gaps.max() - gaps.min() <= 1


def test_all_windows_when_more_is_asked_for_than_there_is() -> None:
    assert Windows(counting(50), 8, 10_000).count == Windows(counting(50), 8).count == 7
