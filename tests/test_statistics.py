"""Means, differences and corrections, against scipy and numbers worked out by hand."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hairpin.reports.statistics import (
    holm_adjusted,
    mean_difference,
    min_detectable,
    paired_difference,
    student_p,
    student_quantile,
    unpaired_difference,
)

stats = pytest.importorskip("scipy.stats", reason="scipy is the oracle here")
NUMBERS = st.floats(-1e3, 1e3).map(lambda value: round(value, 6))


@given(st.floats(-50, 50), st.floats(1, 500))
def test_the_chance_of_a_value_of_students_t_is_scipys(t: float, degrees: float) -> None:
    assert student_p(t, degrees) == pytest.approx(
        2 * stats.t.sf(abs(t), degrees), rel=1e-9, abs=1e-8
    )


@given(st.floats(0.5, 0.9999), st.floats(1, 500))
def test_the_quantile_of_students_t_is_scipys(probability: float, degrees: float) -> None:
    expected = stats.t.ppf(probability, degrees)
    assert student_quantile(probability, degrees) == pytest.approx(expected, rel=1e-7, abs=1e-12)


def test_the_table_that_everybody_has_printed() -> None:
    """Two-sided 95%: 12.71, 4.303, 2.776 and 1.960."""
    for degrees, t in ((1, 12.706), (2, 4.303), (4, 2.776), (1e7, 1.960)):
        assert student_quantile(0.975, degrees) == pytest.approx(t, abs=6e-4)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=12))
def test_a_paired_difference_is_scipys_paired_test(pairs: list[tuple[float, float]]) -> None:
    base, other = (list(side) for side in zip(*pairs, strict=True))
    found = paired_difference(base, other)
    steps = [b - a for a, b in pairs]
    if statistics.pstdev(steps) <= 1e-9 * max(1.0, *map(abs, steps)):
        return  # scipy warns of cancellation there
    expected = stats.ttest_rel(other, base)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


def test_an_unpaired_difference_is_welchs_test() -> None:
    draw = random.Random(3)
    base = [draw.gauss(1.0, 0.1) for _ in range(5)]
    other = [draw.gauss(1.2, 0.4) for _ in range(9)]
    found = unpaired_difference(base, other)
    expected = stats.ttest_ind(other, base, equal_var=False)
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.degrees == pytest.approx(expected.df) and not found.is_paired


def test_a_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, error 1/√3, t = 3.4641, interval ± 4.3027/√3."""
    found = paired_difference([0.0, 0.0, 0.0], [1.0, 2.0, 3.0])
    assert found.mean == 2.0 and found.count == 3
    assert found.half_width == pytest.approx(4.30265 / math.sqrt(3), abs=1e-4)
    assert found.p == pytest.approx(0.07418, abs=1e-5)


def test_one_pair_says_nothing() -> None:
    found = mean_difference([0.5])
    assert (found.mean, found.p) == (0.5, 1.0) and math.isinf(found.high)
    assert math.isinf(unpaired_difference([1.0], [2.0, 3.0]).low)


def test_equal_differences_leave_no_doubt() -> None:
    assert mean_difference([0.0, 0.0]).p == 1.0
    assert mean_difference([0.25, 0.25]).p == 0.0
    assert unpaired_difference([1.0, 1.0], [2.0, 2.0]).p == 0.0


def test_holms_correction_by_hand() -> None:
    """Holm (1979) on 0.01, 0.04, 0.03, 0.005: times 3, 1, 2, 4, and never falling."""
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted([0.9, 0.8]) == [1.0, 1.0]
    assert holm_adjusted([]) == []


@pytest.mark.parametrize("count", [3, 5, 20])
def test_the_smallest_difference_is_shown_four_times_out_of_five(count: int) -> None:
    """Against scipy's exact power, by the non-central t distribution: 80% within two points."""
    size = min_detectable(1.0, count)
    limit = stats.t.ppf(0.975, count - 1)
    power = stats.nct.sf(limit, count - 1, size * math.sqrt(count))
    assert power == pytest.approx(0.8, abs=0.05)
    assert math.isinf(min_detectable(1.0, 1))


def test_a_true_difference_of_nothing_is_found_one_time_in_twenty() -> None:
    draw = random.Random(7)
    found = [mean_difference([draw.gauss(0, 1) for _ in range(5)]).p < 0.05 for _ in range(2000)]
    assert 0.035 < statistics.fmean(found) < 0.065
