import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.tasks.divided import stratified

LABELS = st.sampled_from(["ham", "spam", "eggs"])
FRACTIONS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**32)


@st.composite
def examples(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Labels and texts; few texts, so that many are equal."""
    pairs = draw(st.lists(st.tuples(LABELS, st.integers(0, 30).map(str)), max_size=60))
    return [label for label, _ in pairs], [key for _, key in pairs]


@st.composite
def distinct(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Labels and texts, each text once."""
    labels = draw(st.lists(LABELS, max_size=80))
    return labels, [f"text {number}" for number in range(len(labels))]


@given(examples(), FRACTIONS, SEEDS)
def test_each_example_is_in_one_half_and_equal_texts_in_the_same(
    data: tuple[list[str], list[str]], fraction: float, seed: int
) -> None:
    labels, keys = data
    train, val = stratified(labels, keys, fraction, seed)
    assert sorted(train + val) == list(range(len(labels)))
    assert train == sorted(train)
    assert val == sorted(val)
    assert not {keys[i] for i in train} & {keys[i] for i in val}


@given(distinct(), FRACTIONS, SEEDS)
def test_each_class_is_divided_by_itself_and_the_whole_in_the_share_asked_for(
    data: tuple[list[str], list[str]], fraction: float, seed: int
) -> None:
    labels, keys = data
    train, val = stratified(labels, keys, fraction, seed)
    sizes, taken = Counter(labels), Counter(labels[i] for i in val)
    left = Counter(labels[i] for i in train)
    bent = 0
    for label, size in sizes.items():
        assert abs(taken[label] - size * fraction) <= 1 + 1e-9
        if size >= 2:
            assert taken[label]
            assert left[label]
        bent += taken[label] == 1 or left[label] <= 1
    # "At least one" bends the share; where it has not, the whole is rounded like any number.
    assert abs(len(val) - len(labels) * fraction) <= 0.5 + bent + 1e-9


@given(examples(), FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_decides_nothing(
    data: tuple[list[str], list[str]], fraction: float, seed: int, shuffle: random.Random
) -> None:
    labels, keys = data
    order = list(range(len(labels)))
    shuffle.shuffle(order)
    _, val = stratified(labels, keys, fraction, seed)
    moved = stratified([labels[i] for i in order], [keys[i] for i in order], fraction, seed)[1]
    assert sorted(order[i] for i in moved) == val


@given(distinct(), FRACTIONS, SEEDS, LABELS)
def test_a_new_example_moves_few_others(
    data: tuple[list[str], list[str]], fraction: float, seed: int, label: str
) -> None:
    labels, keys = data
    before = stratified(labels, keys, fraction, seed)[1]
    after = stratified([*labels, label], [*keys, "one more"], fraction, seed)[1]
    # Its own class may lose one to it; and each of three classes may round the other way.
    assert len(set(before) ^ set(after)) <= 1 + 1 + 3


def test_the_split_of_a_balanced_file_is_exact() -> None:
    labels = ["ham", "spam"] * 500
    keys = [str(i) for i in range(1000)]
    train, val = stratified(labels, keys, 0.1, 1)
    assert Counter(labels[i] for i in val) == {"ham": 50, "spam": 50}
    assert len(train) == 900
    other = set(stratified(labels, keys, 0.1, 2)[1])
    assert len(other) == 100
    assert len(other & set(val)) < 40  # two draws of a tenth share about ten


def test_largest_remainders_make_up_the_whole() -> None:
    labels = ["a"] * 14 + ["b"] * 14 + ["c"] * 14  # shares of 1.4, together 4.2
    taken = Counter(labels[i] for i in stratified(labels, [str(i) for i in range(42)], 0.1, 0)[1])
    assert sorted(taken.values()) == [1, 1, 2]


def test_classes_with_one_text_are_for_training() -> None:
    assert stratified(["a"], ["x"], 0.5, 0) == ([0], [])
    assert stratified(["a", "a", "b"], ["x", "x", "y"], 0.9, 0) == ([0, 1, 2], [])
    assert stratified([], [], 0.5, 0) == ([], [])


def test_a_share_of_nothing_is_nothing() -> None:
    assert stratified(["a"] * 3, ["x", "y", "z"], 0.0, 0) == ([0, 1, 2], [])
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"not in \[0, 1\)"):
            stratified(["a"], ["x"], fraction, 0)


def test_a_text_that_many_examples_share_does_not_fill_the_other_half() -> None:
    keys = ["x"] * 90 + [str(i) for i in range(10)]
    for seed in range(20):
        val = stratified(["a"] * 100, keys, 0.05, seed)[1]
        assert len(val) == 5
        assert 0 not in val


def test_a_text_with_two_labels_counts_to_the_one_it_has_more_often() -> None:
    labels = ["a", "b", "b", "a", "a"]
    train, val = stratified(labels, ["x", "x", "x", "y", "z"], 0.5, 0)
    # "x" is all that class b has, so it is for training; y and z of class a are divided.
    assert train[:3] == [0, 1, 2]
    assert len(val) == 1


def test_the_split_stays_what_it_is_between_versions() -> None:
    # Those whose `printf "7\nt16" | sha256sum` (and so on) are the lowest of the ten.
    keys = [f"t{number}" for number in range(10, 20)]
    val = stratified([""] * 10, keys, 0.3, 7)[1]
    assert {keys[i] for i in val} == {"t16", "t10", "t17"}
