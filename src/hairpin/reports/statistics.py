"""Significance of differences: means with intervals, paired and unpaired differences, and a
correction for multiple comparisons.

Everything is based on Student's t (1908): with a handful of seeds the normal distribution would
call far too many differences real.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
POWER = 0.8
_TINY = 1e-300


@dataclass(frozen=True)
class Difference:
    """A mean, or a difference of means, with its 95% interval.

    Args:
        mean: the estimate.
        low, high: the interval's ends; infinite if there are too few values.
        p: two-sided, of the hypothesis that the true mean is 0.
        count: pairs, or values in the smaller group.
        degrees: degrees of freedom.
        is_paired: values were compared within pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    count: int
    degrees: float
    is_paired: bool = True

    @property
    def half_width(self) -> float:
        """Half of the interval's length."""
        return (self.high - self.low) / 2


def mean_difference(values: Sequence[float]) -> Difference:
    """Test whether the mean of values (such as differences within pairs) is 0: Student's t test.

    Args:
        values: one or more; for a single value the interval is infinite.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Difference(mean, -math.inf, math.inf, 1.0, count, 0.0)
    error = statistics.stdev(values) / math.sqrt(count)
    return _difference(mean, error, count - 1, count, is_paired=True)


def paired_difference(base: Sequence[float], other: Sequence[float]) -> Difference:
    """Return other − base for values paired by position."""
    return mean_difference([b - a for a, b in zip(base, other, strict=True)])


def unpaired_difference(base: Sequence[float], other: Sequence[float]) -> Difference:
    """Return other − base of two independent groups: Welch's test (1947), which does not assume
    equal variances.
    """
    mean = statistics.fmean(other) - statistics.fmean(base)
    count = min(len(base), len(other))
    if count < 2:
        return Difference(mean, -math.inf, math.inf, 1.0, count, 0.0, is_paired=False)
    a = statistics.variance(base) / len(base)
    b = statistics.variance(other) / len(other)
    degrees = float(count - 1)
    if a + b > 0:
        degrees = (a + b) ** 2 / (a * a / (len(base) - 1) + b * b / (len(other) - 1))
    return _difference(mean, math.sqrt(a + b), degrees, count, is_paired=False)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979): with 0.05 as limit, the chance of rejecting any
    true hypothesis is at most 5%.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def min_detectable(deviation: float, count: int) -> float:
    """Return the true difference that `count` pairs would detect four times out of five.

    Args:
        deviation: standard deviation of the differences within pairs.
        count: number of pairs.
    """
    if count < 2:
        return math.inf
    degrees = count - 1
    t = student_quantile((1 + CONFIDENCE) / 2, degrees) + student_quantile(POWER, degrees)
    return t * deviation / math.sqrt(count)


def student_p(t: float, degrees: float) -> float:
    """Return the probability that |Student's t| exceeds |t|, for these degrees of freedom."""
    whole = degrees + t * t
    return _beta_share(degrees / 2, 0.5, degrees / whole, t * t / whole)


def student_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t for this probability (0.5 ≤ probability < 1)."""
    low, high = 0.0, 1.0
    while 1 - student_p(high, degrees) / 2 < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if 1 - student_p(middle, degrees) / 2 < probability:
            low = middle
        else:
            high = middle
    return high


def _difference(
    mean: float, error: float, degrees: float, count: int, *, is_paired: bool
) -> Difference:
    if error == 0:  # equal values: no uncertainty
        return Difference(mean, mean, mean, float(mean == 0), count, degrees, is_paired)
    half = student_quantile((1 + CONFIDENCE) / 2, degrees) * error
    p = student_p(mean / error, degrees)
    return Difference(mean, mean - half, mean + half, p, count, degrees, is_paired)


def _beta_share(a: float, b: float, x: float, rest: float) -> float:
    """Return the regularised incomplete beta function (Abramowitz and Stegun 26.5.8, a continued
    fraction that converges fast below the mean; above it by symmetry). `rest` is 1 − x, exact where
    that is small.
    """
    if x <= 0 or rest <= 0:
        return float(rest <= 0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta_share(b, a, rest, x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log(rest)
    numerator, denominator = 1.0, _clamped_from_zero(1 - (a + b) * x / (a + 1))
    denominator = 1 / denominator
    value = denominator
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            denominator = 1 / _clamped_from_zero(1 + term * denominator)
            numerator = _clamped_from_zero(1 + term / numerator)
            value *= numerator * denominator
        if abs(value - before) <= 1e-15 * abs(value):
            break
    return math.exp(log_front) * value / a


def _clamped_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
