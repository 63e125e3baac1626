"""Main effects and interactions of an ablation with arms for every combination of factors on or off
(Fisher 1935; the signs are Yates's).
"""

import itertools
from collections.abc import Iterator, Sequence

from hairpin.reports.comparison import ArmResult, Contrast, verdict
from hairpin.reports.statistics import Difference, holm_adjusted, mean_difference


def effects(
    arms: Sequence[ArmResult], factors: Sequence[str], smallest: float, unit: str
) -> tuple[Contrast, ...]:
    """Return the effect of each factor and of each combination of them on the final loss.

    A main effect is the mean with the factor on minus the mean with it off, over all settings of
    the others. The interaction of two is half the change of one's effect when the other is switched
    on: 0 if they simply add up; and so on for more. Each is computed within a seed, whose runs
    share initial weights and order of data, and then averaged over seeds.

    Args:
        arms: one for each combination; `arm.changes` tells what is on.
        factors: their names.
        smallest: the effect below which one is irrelevant.
        unit: of the figures.
    """
    found = []
    for group in groups_of(factors):
        by_seed = tuple(_effects_by_seed(arms, factors, group))
        if by_seed:
            found.append((group, mean_difference(by_seed), by_seed))
    adjusted = holm_adjusted([difference.p for _, difference, _ in found])
    return tuple(
        Contrast(
            " x ".join(group),
            "off" if len(group) == 1 else "no interaction",
            difference,
            p,
            _words(group, difference, p, smallest, unit),
            by_seed,
        )
        for (group, difference, by_seed), p in zip(found, adjusted, strict=True)
    )


def groups_of(factors: Sequence[str]) -> list[tuple[str, ...]]:
    """Return each factor alone, then each pair, and so on."""
    return [
        group
        for size in range(1, len(factors) + 1)
        for group in itertools.combinations(factors, size)
    ]


def _effects_by_seed(
    arms: Sequence[ArmResult], factors: Sequence[str], group: Sequence[str]
) -> Iterator[float]:
    """Yield the effect for each seed for which every arm has a finite loss."""
    losses = [
        {outcome.seed: outcome.final.get(arm.unit) for outcome in arm.outcomes} for arm in arms
    ]
    for seed in losses[0]:
        values = [of_arm.get(seed) for of_arm in losses]
        total = 0.0
        for arm, value in zip(arms, values, strict=True):
            if value is None:
                break
            off = sum(not arm.arm.changes[factor] for factor in group)
            total += -value if off % 2 else value
        else:
            yield total / 2 ** (len(factors) - 1)


def _words(
    group: Sequence[str], difference: Difference, p: float, smallest: float, unit: str
) -> str:
    words = verdict(difference, p, smallest, unit)
    if len(group) == 1:
        return words
    together = {
        "better": "more in combination than separately, ",
        "worse": "less in combination than separately, ",
    }
    first, _, rest = words.partition(" ")
    return together[first] + rest if first in together else words
