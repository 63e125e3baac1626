"""Comparison of an experiment's arms: the better one, and whether the seed explains it.

It reads only the folders of the runs, at any time, and leaves out results still missing.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hairpin.errors import RunError
from hairpin.reports.outcomes import (
    BITS,
    NATS,
    PER_LABEL,
    SOME_TEXT,
    Outcome,
    outcome_of_file,
    outcome_of_run,
)
from hairpin.reports.statistics import (
    Difference,
    holm_adjusted,
    mean_difference,
    unpaired_difference,
)
from hairpin.runs.experiment_folder import TUNING_SEEDS, Arm, Experiment, ExperimentDirectory, Trial
from hairpin.runs.folder import RunDirectory

SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class ArmResult:
    """Result of an arm.

    Args:
        arm: the arm.
        outcomes: of the verdict's runs, by seed.
        tuning: multiple of the peak learning rate → runs on the tuning seeds.
        scale: the multiple used by the verdict's runs.
        unit: of the figures.
    """

    arm: Arm
    outcomes: tuple[Outcome, ...]
    tuning: Mapping[float, tuple[Outcome, ...]]
    scale: float
    unit: str

    @property
    def peak_lr(self) -> float | None:
        """The learning rate of the verdict's runs, if they share one."""
        if self.arm.config:
            return self.arm.peak_lr * self.scale
        rates = {outcome.peak_lr for outcome in self.outcomes}
        return rates.pop() if len(rates) == 1 else None

    @property
    def is_at_edge(self) -> bool:
        """True if the best learning rate was the highest or lowest that was tried."""
        return len(self.tuning) > 1 and self.scale in (min(self.tuning), max(self.tuning))

    @property
    def finals(self) -> list[float]:
        """The final validation losses of the runs that did not diverge."""
        return [outcome.final[self.unit] for outcome in self.outcomes if self.unit in outcome.final]

    @property
    def diverged(self) -> int:
        """The number of the verdict's runs that diverged."""
        return sum(outcome.diverged for outcome in self.outcomes)

    def mean(self, key: str) -> float | None:
        """Return the verdict's runs' mean of "final", "best", or one of an outcome's numbers."""
        if key in ("final", "best"):
            values = [getattr(outcome, key).get(self.unit) for outcome in self.outcomes]
        else:
            values = [getattr(outcome, key) for outcome in self.outcomes]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None


@dataclass(frozen=True)
class Contrast:
    """A difference between two arms, or an effect of an ablation.

    Args:
        name: the subject of the comparison, in words; `base`: its baseline.
        difference: negative if `name` is better.
        adjusted_p: Holm's correction over all contrasts of the experiment.
        verdict: in words.
        by_seed: the differences that it is the mean of.
    """

    name: str
    base: str
    difference: Difference
    adjusted_p: float
    verdict: str
    by_seed: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """All results of an experiment.

    Args:
        experiment: the experiment.
        arms: the result of each; a twin has its twin's runs.
        contrasts: of each arm with the first; of an ablation, effects.
        unit: of the figures.
        notes: caveats that a reader must know.
    """

    experiment: Experiment
    arms: tuple[ArmResult, ...]
    contrasts: tuple[Contrast, ...]
    unit: str
    notes: tuple[str, ...]


def read_arms(experiment: Experiment, directory: ExperimentDirectory) -> list[ArmResult]:
    """Return the results so far of each arm.

    Raises:
        RunError: a named run is missing or damaged, or runs predict different things.
    """
    found: dict[str, tuple[list[Outcome], dict[float, list[Outcome]]]] = {}
    for arm in experiment.arms:
        if arm.same_as is not None:
            found[arm.name] = found[arm.same_as]
        elif arm.sources:
            found[arm.name] = ([_outcome_of(source) for source in arm.sources], {})
        else:
            found[arm.name] = _trained(experiment, directory, arm)
    everything = [o for outcomes, tuning in found.values() for o in (*outcomes, *_all(tuning))]
    _require_comparable_losses(everything)
    known = [outcome for outcome in everything if outcome.final]
    units = (BITS, PER_LABEL, NATS)
    unit = next((u for u in units if all(u in outcome.final for outcome in known)), NATS)
    results = []
    for arm in experiment.arms:
        outcomes, tuning = found[arm.name]
        frozen = {scale: tuple(group) for scale, group in tuning.items()}
        scale = best_scale(frozen, unit, experiment.scales)
        results.append(ArmResult(arm, tuple(outcomes), frozen, scale, unit))
    return results


def _require_comparable_losses(outcomes: Sequence[Outcome]) -> None:
    """Check that the losses are of one kind of prediction.

    Raises:
        RunError: they differ; the line names a run of each kind.
    """
    kinds: dict[str, str] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.loss_of, outcome.name)
    if not any(outcome.is_of_labels for outcome in outcomes):
        kinds.pop(SOME_TEXT, None)
    if len(kinds) > 1:
        named = "; ".join(f"{name} predicts {kind}" for kind, name in kinds.items())
        raise RunError(f"these losses measure different things: {named}; compare runs of one kind")


def best_scale(
    tuning: Mapping[float, Sequence[Outcome]], unit: str, scales: Sequence[float]
) -> float:
    """Return the multiple of the peak learning rate with the lowest mean final loss, none of whose
    runs diverged; the middle one while there are no results.
    """
    means = {
        scale: statistics.fmean(outcome.final[unit] for outcome in outcomes)
        for scale, outcomes in tuning.items()
        if outcomes and all(unit in outcome.final for outcome in outcomes)
    }
    if means:
        return min(means, key=lambda scale: means[scale])
    return 1.0 if 1.0 in scales else scales[0]


def _trained(
    experiment: Experiment, directory: ExperimentDirectory, arm: Arm
) -> tuple[list[Outcome], dict[float, list[Outcome]]]:
    """Return the outcomes of the finished runs, the verdict's and those of tuning."""
    tuning: dict[float, list[Outcome]] = {}
    verdict: list[Outcome] = []
    for scale in directory.scales_tried(arm):
        for seed in (*TUNING_SEEDS, *experiment.seeds):
            run = directory.run_of(Trial(arm, scale, seed))
            if not (run.path / "trial.json").exists():
                continue
            outcome = outcome_of_run(run)
            if seed in TUNING_SEEDS:
                tuning.setdefault(scale, []).append(outcome)
            else:
                verdict.append(outcome)
    return verdict, tuning


def _all(tuning: Mapping[float, Sequence[Outcome]]) -> list[Outcome]:
    return [outcome for outcomes in tuning.values() for outcome in outcomes]


def _outcome_of(source: str) -> Outcome:
    path = Path(source)
    return outcome_of_run(RunDirectory(path)) if path.is_dir() else outcome_of_file(path)


def differences(base: ArmResult, other: ArmResult) -> tuple[Difference, tuple[float, ...]] | None:
    """Return other − base of final losses, and of each pair; unpaired where their seeds or
    validation sets differ. None: one of them has no finite loss.
    """
    first, second = _losses_by_pair(base), _losses_by_pair(other)
    if not base.finals or not other.finals:
        return None
    if first is not None and second is not None:
        shared = [key for key in first if key in second]
        # A diverged run leaves its pair missing; the others are still pairs.
        alone = len(first) + len(second) - 2 * len(shared)
        if shared and alone <= base.diverged + other.diverged:
            pairs = tuple(second[key] - first[key] for key in shared)
            return mean_difference(pairs), pairs
    return unpaired_difference(base.finals, other.finals), ()


def _losses_by_pair(result: ArmResult) -> dict[tuple[object, ...], float] | None:
    """Return the key a run shares with its pair → its final loss; None: it cannot have pairs."""
    found: dict[tuple[object, ...], float] = {}
    for outcome in result.outcomes:
        if outcome.pairs_by is None or (outcome.seed, *outcome.pairs_by) in found:
            return None
        if result.unit in outcome.final:
            found[outcome.seed, *outcome.pairs_by] = outcome.final[result.unit]
    return found


def verdict(difference: Difference, adjusted_p: float, smallest: float, unit: str) -> str:
    """Return the meaning of a difference in words that continue a sentence about the arm."""
    if difference.count < 2:
        return "one run of each: the seed may explain the difference; run more seeds"
    size = f"{abs(difference.mean):.4f} {unit}"
    if adjusted_p >= SIGNIFICANCE:
        if max(abs(difference.low), abs(difference.high)) < smallest:
            return f"no difference shown; a difference of {smallest:g} {unit} is ruled out"
        return "no difference shown"
    direction = "better" if difference.mean < 0 else "worse"
    if abs(difference.mean) < smallest:
        return f"{direction} by {size}: significant, but too small to matter"
    return f"{direction} by {size}"


def contrasts_with_first(
    arms: Sequence[ArmResult], smallest: float, unit: str
) -> tuple[Contrast, ...]:
    """Return the contrast of each arm with the first."""
    base, *others = arms
    found: list[tuple[ArmResult, Difference, tuple[float, ...]]] = []
    special: dict[str, str] = {}
    for other in others:
        if other.arm.same_as is not None and _root(other.arm) == _root(base.arm):
            special[other.arm.name] = "identical by construction"
        elif measured := differences(base, other):
            found.append((other, *measured))
        else:
            lost = base if not base.finals else other
            every = lost.outcomes and lost.diverged == len(lost.outcomes)
            special[other.arm.name] = (
                f"every run of {lost.arm.name} diverged" if every else "not trained yet"
            )
    adjusted = iter(holm_adjusted([difference.p for _, difference, _ in found]))
    measured_ones = {
        arm.arm.name: Contrast(
            arm.arm.name,
            base.arm.name,
            difference,
            p := next(adjusted),
            verdict(difference, p, smallest, unit),
            pairs,
        )
        for arm, difference, pairs in found
    }
    nothing = Difference(math.nan, math.nan, math.nan, 1.0, 0, 0.0)
    return tuple(
        measured_ones.get(other.arm.name)
        or Contrast(other.arm.name, base.arm.name, nothing, 1.0, special[other.arm.name])
        for other in others
    )


def _root(arm: Arm) -> str:
    return arm.same_as or arm.name
