"""The phases of an experiment: pilot, tune, verdict.

    pilot     each arm at its own learning rate on the tuning seeds: how long a run takes, and how
              much arms differ from seed to seed; with a budget, how many seeds there will be
    tune      the other learning rates on the same seeds; further out if the best is at the edge
    verdict   each arm at its best learning rate, on separate seeds

Every run is an ordinary one in a folder of its own, so that a killed experiment resumes where it
stopped: finished runs are not trained again, and unfinished ones are resumed.
"""

import math
import os
import statistics
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import psutil

from hairpin.config.load import to_tree
from hairpin.errors import RunError
from hairpin.experiments.workers import Workers
from hairpin.reports.comparison import ArmResult, read_arms
from hairpin.reports.formats import format_duration
from hairpin.reports.statistics import min_detectable
from hairpin.runs.entries import is_free, refuse_links
from hairpin.runs.experiment_folder import (
    TUNING_SEEDS,
    Arm,
    Experiment,
    ExperimentDirectory,
    Trial,
)
from hairpin.runs.lock import RunLock
from hairpin.runs.watcher import Quiet

SEEDS = 5
FEWEST_SEEDS, MOST_SEEDS = 3, 12
_MAX_EXTENSIONS = 2
_USED = 0.92  # of a budget: the rest is a reserve
_GIGABYTES_PER_WORKER = 3.5


class Progress(Protocol):
    """Display of an experiment."""

    def notice(self, line: str) -> None:
        """Show a line that users should read."""

    def advance(self, stage: str, done: float, total: float, runs: str) -> None:
        """Show that `done` of `total` updates of the experiment are done."""


class NoProgress:
    """Shows nothing."""

    def notice(self, line: str) -> None:
        """Ignore it."""

    def advance(self, stage: str, done: float, total: float, runs: str) -> None:
        """Ignore it."""


@dataclass(frozen=True)
class Preparing(Quiet):
    """Forwards the messages of preparation."""

    progress: Progress = field(default_factory=NoProgress)

    def stage(self, name: str, done: int, total: int) -> None:
        self.progress.advance(name, done, total, "")

    def notice(self, line: str) -> None:
        self.progress.notice(line)


@dataclass(frozen=True)
class Resources:
    """Resources of an experiment.

    Args:
        workers: concurrent processes.
        threads: compute threads in each.
        budget_seconds: total wall time; None: unlimited.
        started: the start of the budget, on `time.monotonic`.
    """

    workers: int
    threads: int
    budget_seconds: float | None
    started: float

    @property
    def seconds_left(self) -> float:
        """Seconds left of the budget."""
        assert self.budget_seconds is not None
        return self.started + _USED * self.budget_seconds - time.monotonic()


def available_workers(runs: int, device: str, asked: int | None = None) -> tuple[int, int]:
    """Return the number of concurrent processes and of threads in each, for small models: as many
    processes as cores and memory allow, since one thread each wastes nothing; one on a GPU.

    Args:
        runs: that could be trained concurrently.
        device: of all runs.
        asked: requested processes; None: chosen here.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    fitting = int(psutil.virtual_memory().available / (_GIGABYTES_PER_WORKER * 1e9))
    workers = max(1, min(cores, runs, fitting))
    if device not in ("auto", "cpu") or (device == "auto" and _has_gpu()):
        workers = 1
    threads = max(1, cores // workers)
    return (asked, max(1, workers * threads // asked)) if asked else (workers, threads)


def _has_gpu() -> bool:
    from hairpin.machine.numerics import choose_device

    return choose_device("auto") != "cpu"


def runs_of(arms: int, scales: int, seeds: int) -> int:
    """Return the number of runs, without those beyond the edge of the learning rates."""
    tuning = scales * len(TUNING_SEEDS) if scales > 1 else 0
    return arms * (tuning + seeds)


def seconds_per_run(resources: Resources, arms: int, scales: int, seeds: int) -> float:
    """Return the seconds that a run may take so that all fit the budget."""
    return resources.seconds_left * resources.workers / runs_of(arms, scales, seeds)


def run_experiment(
    experiment: Experiment,
    directory: ExperimentDirectory,
    resources: Resources,
    progress: Progress,
    *,
    seconds: float | None,
    seeds_are_open: bool,
) -> Experiment:
    """Train all missing runs.

    Args:
        experiment: the arms and their settings.
        directory: its folder, which exists.
        resources: the resources.
        progress: display.
        seconds: about what a run takes; None: already reported.
        seeds_are_open: whether the budget decides the number of seeds.

    Returns:
        The experiment with its final seeds.

    Raises:
        HairpinError: a run could not be trained.
    """
    with RunLock(directory.path), Workers(resources.workers, resources.threads) as workers:
        runner = TrialRunner(experiment, directory, workers, progress)
        if seconds:
            progress.notice(_cost_text(experiment, resources, seconds, over=0))
        if experiment.is_tuned:
            runner.train("pilot", tuning_trials(experiment.trained, [1.0]))
            results = read_arms(experiment, directory)
            measured = _seconds_of(results) or seconds or 0.0
            if seeds_are_open and measured:
                experiment = _with_affordable_seeds(experiment, directory, resources, measured)
                directory.write(experiment)
                runner.experiment = experiment
            pilots = len(experiment.trained) * len(TUNING_SEEDS)
            progress.notice(_cost_text(experiment, resources, measured, over=pilots))
            progress.notice(_resolution_text(experiment, results))
            runner.train("tuning", tuning_trials(experiment.trained, experiment.scales))
            for _ in range(_MAX_EXTENSIONS):
                runner.train("tuning", list(trials_beyond_edges(experiment, directory)))
        runner.train("verdict", _verdict(experiment, directory))
    return experiment


class TrialRunner:
    """Trains trials and reports overall progress."""

    def __init__(
        self,
        experiment: Experiment,
        directory: ExperimentDirectory,
        workers: Workers,
        progress: Progress,
    ) -> None:
        self.experiment = experiment
        self._directory = directory
        self._workers = workers
        self._progress = progress
        self._lock = threading.Lock()
        self._done: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}

    def train(self, stage: str, trials: Sequence[Trial]) -> None:
        """Train the trials that are not finished."""
        wanted = []
        for trial in trials:
            folder = self._directory.run_of(trial).path
            config = self.experiment.config_of(trial)
            assert config.train.updates
            self._lengths[folder] = config.train.updates
            if (folder / "trial.json").exists():
                self._done[folder] = config.train.updates
            else:
                wanted.append((folder, to_tree(config)))
        if not wanted:
            return
        self._show_progress(stage)
        self._workers.train(wanted, lambda folder, updates: self._trained(stage, folder, updates))
        for folder, _ in wanted:  # those that diverged are finished too
            self._done[folder] = self._lengths[folder]
        self._show_progress(stage)

    def _trained(self, stage: str, folder: Path, updates: int) -> None:
        with self._lock:
            self._done[folder] = updates
            self._show_progress(stage)

    def _show_progress(self, stage: str) -> None:
        experiment = self.experiment
        planned = runs_of(len(experiment.trained), len(experiment.scales), len(experiment.seeds))
        known = sum(self._lengths.values())
        mean = known / len(self._lengths)
        count = max(planned, len(self._lengths))
        over = sum(done >= self._lengths[folder] for folder, done in self._done.items())
        total = known + mean * (count - len(self._lengths))
        self._progress.advance(stage, sum(self._done.values()), total, f"{over} of {count} runs")


def tuning_trials(arms: Iterable[Arm], scales: Iterable[float]) -> list[Trial]:
    """Return all arms at one learning rate before the next, so that partial results compare."""
    return [Trial(arm, scale, seed) for scale in scales for seed in TUNING_SEEDS for arm in arms]


def trials_beyond_edges(experiment: Experiment, directory: ExperimentDirectory) -> Iterable[Trial]:
    """Yield the next multiple for arms whose best learning rate is at the edge of those tried."""
    for result in read_arms(experiment, directory):
        if result.arm in experiment.trained and result.is_at_edge:
            further = 2.0 if result.scale == max(result.tuning) else 0.5
            yield from tuning_trials([result.arm], [result.scale * further])


def _verdict(experiment: Experiment, directory: ExperimentDirectory) -> list[Trial]:
    results = {result.arm.name: result for result in read_arms(experiment, directory)}
    return [
        Trial(arm, results[arm.name].scale, seed)
        for seed in experiment.seeds
        for arm in experiment.trained
    ]


def _seconds_of(results: Sequence[ArmResult]) -> float | None:
    """Return the mean seconds of a run."""
    seconds = [
        outcome.seconds
        for result in results
        for outcomes in result.tuning.values()
        for outcome in outcomes
        if outcome.seconds is not None and not outcome.diverged
    ]
    return statistics.fmean(seconds) if seconds else None


def _with_affordable_seeds(
    experiment: Experiment, directory: ExperimentDirectory, resources: Resources, seconds: float
) -> Experiment:
    """Return the experiment with as many seeds as the budget has room for after tuning."""
    arms = len(experiment.trained)
    over = sum(
        (directory.run_of(trial).path / "trial.json").exists()
        for trial in tuning_trials(experiment.trained, experiment.scales)
    )
    tuning = arms * len(experiment.scales) * len(TUNING_SEEDS) - over
    room = resources.seconds_left * resources.workers / seconds - tuning
    seeds = max(FEWEST_SEEDS, min(MOST_SEEDS, int(room / arms)))
    return replace(experiment, seeds=tuple(range(seeds)))


def _cost_text(experiment: Experiment, resources: Resources, seconds: float, over: int) -> str:
    """Describe the total time, from the seconds per run and the number of finished runs."""
    arms, scales, seeds = len(experiment.trained), len(experiment.scales), len(experiment.seeds)
    runs = runs_of(arms, scales, seeds)
    tuning = f"({scales} learning rates x {len(TUNING_SEEDS)} seeds to tune + {seeds} seeds"
    each = f"{tuning} for the verdict)" if experiment.is_tuned else f"{seeds} seeds"
    left = (runs - over) * seconds / resources.workers
    return (
        f"{'after the pilot' if over else 'cost'}: {runs} runs, {arms} arms x {each}, "
        f"{resources.workers} at a time; a run takes {format_duration(seconds)}, about "
        f"{format_duration(left)} to go"
    )


def _resolution_text(experiment: Experiment, results: Sequence[ArmResult]) -> str:
    """Describe the smallest difference that is likely to be detected."""
    deviation, seeds = pilot_deviation(results), len(experiment.seeds)
    if deviation is None:
        return "too few pilot runs finished to tell how small a difference can be detected"
    return (
        f"the pilot's differences between arms vary by {deviation:.4f} {results[0].unit} from seed "
        f"to seed: {seeds} seeds detect one of {min_detectable(deviation, seeds):.4f} or more four "
        "times out of five"
    )


def pilot_deviation(results: Sequence[ArmResult]) -> float | None:
    """Return the standard deviation of the differences between arms within a seed, pooled over
    arms; None without at least two seeds of two arms.
    """
    unit, squares, count = results[0].unit, 0.0, 0
    rows = [
        [outcome.final[unit] for outcome in result.tuning.get(1.0, ()) if unit in outcome.final]
        for result in results
        if result.arm.same_as is None
    ]
    base, *others = [row for row in rows if len(row) == len(TUNING_SEEDS)] or [[]]
    for row in others:
        squares += statistics.variance([b - a for a, b in zip(base, row, strict=True)])
        count += 1
    return math.sqrt(squares / count) if count else None


def open_experiment(path: Path, asked: Experiment) -> Experiment | None:
    """Return the experiment in a folder if it matches the request; None if there is none.

    Raises:
        RunError: the folder has a different experiment or other files; or contains a link.
    """
    refuse_links(path)
    directory = ExperimentDirectory(path)
    if not directory.description.exists():
        if not is_free(path):
            raise RunError(f"{path}: exists and is not an experiment; name another with --out")
        return None
    there = directory.read()
    if there.asked != asked.asked:
        different = [key for key in asked.asked if there.asked.get(key) != asked.asked[key]]
        raise RunError(
            f"{path}: it holds another experiment ({', '.join(different) or 'older'} differs); "
            "name another folder with --out"
        )
    return there
