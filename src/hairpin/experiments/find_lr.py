"""Search for a peak learning rate by short runs of the whole schedule.

A range test, one run whose rate rises until the loss does, finds where training diverges, not which
rate ends best after warmup and decay. So each rate here gets a run of its own with the whole
schedule; a quarter as long as the real one if the search has time. The rates are a factor of two
apart and extend in either direction until they get worse.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hairpin.config.durations import parse_duration
from hairpin.config.load import with_values
from hairpin.errors import ConfigError
from hairpin.experiments.arms import RequestedArm, overridden
from hairpin.experiments.runner import (
    Preparing,
    Progress,
    Resources,
    TrialRunner,
    available_workers,
    trials_beyond_edges,
    tuning_trials,
)
from hairpin.experiments.workers import Workers
from hairpin.launch.request import Request, length_of, name_of, requested_config, require_text
from hairpin.reports.comparison import ArmResult, read_arms
from hairpin.reports.formats import format_lr, format_updates
from hairpin.runs.experiment_folder import TUNING_SEEDS, Experiment, ExperimentDirectory
from hairpin.system.files import write_atomically

DEFAULT_BUDGET = "5m"
_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
_MAX_FURTHER = 5
_EXPECTED_RUNS = 14  # the first five rates and two more, with two seeds each
_SHARE = 0.25
_MIN_UPDATES = 100
_WORKS = 0.01  # bits per byte from the best: equally good, for most purposes


@dataclass(frozen=True)
class Rate:
    """Result of a learning rate: final losses, None where a run diverged."""

    lr: float
    losses: tuple[float, ...]
    diverged: bool

    @property
    def mean(self) -> float:
        """Mean of the losses; infinite if a run diverged."""
        return statistics.fmean(self.losses) if self.losses and not self.diverged else math.inf


@dataclass(frozen=True)
class SuggestedRate:
    """The suggested learning rate and the evidence for it.

    Args:
        text, model: descriptions of the text and the model.
        unit: of the losses.
        rates: all rates tried, lowest first.
        suggestion: the peak learning rate to take.
        updates: of each run.
        page: file with the plot.
    """

    text: str
    model: str
    unit: str
    rates: tuple[Rate, ...]
    suggestion: float
    updates: int
    page: Path | None = None

    @property
    def working(self) -> tuple[float, float]:
        """The lowest and the highest of the tried rates that are as good as the best."""
        best = min(rate.mean for rate in self.rates)
        good = [rate.lr for rate in self.rates if rate.mean <= best + _WORKS]
        return min(good), max(good)

    def lines(self) -> list[str]:
        """The suggestion and its reason, for people."""
        low, high = self.working
        rows = [
            f"  {format_lr(rate.lr):>8}   "
            + ("diverged" if rate.diverged else f"{rate.mean:.4f} {self.unit}")
            for rate in self.rates
        ]
        found = [f"peak learning rate on {self.text}: {format_lr(self.suggestion)}", self.reason()]
        found += [self.model, *rows]
        if low != high:
            found.append(f"from {format_lr(low)} to {format_lr(high)} makes no material difference")
        found.append(f"use it: --lr {self.suggestion:g}")
        return found + ([f"page: {self.page}"] if self.page else [])

    def reason(self) -> str:
        """Return the reason for the suggestion."""
        best = min(self.rates, key=lambda rate: rate.mean)
        lost = [rate.lr for rate in self.rates if rate.diverged]
        words = (
            f"runs of {format_updates(self.updates)} with the whole schedule, "
            f"{len(TUNING_SEEDS)} seeds each, ended lowest at {format_lr(best.lr)}"
        )
        if abs(math.log2(self.suggestion / best.lr)) > 0.01:
            words += "; the suggestion is the minimum of a parabola through it and its neighbours"
        return words + (f"; they diverged from {format_lr(min(lost))}" if lost else "")

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        low, high = self.working
        return {
            "text": self.text,
            "suggestion": self.suggestion,
            "lowest_that_works": low,
            "highest_that_works": high,
            "unit": self.unit,
            "updates": self.updates,
            "reason": self.reason(),
            "rates": [
                {"lr": rate.lr, "losses": list(rate.losses), "diverged": rate.diverged}
                for rate in self.rates
            ],
        }


def search(
    request: Request,
    workers: int | None,
    progress: Progress,
) -> SuggestedRate:
    """Try learning rates in a temporary folder and write the page.

    Args:
        request: the config; the wall time for the search (None: 5 minutes); the page to write
            (None: `find-lr-<text>.html`).
        workers: concurrent runs.
        progress: display.

    Raises:
        UserError: the config is invalid.
        HairpinError: every rate diverged, or a run could not be trained.
    """
    config = requested_config(request)
    require_text(config)
    for line in overridden(request):
        progress.notice(line)
    page = request.folder or Path(f"find-lr-{name_of(config)}.html")
    if page.is_dir() or not page.absolute().parent.is_dir():
        raise ConfigError(f"--out {page}: cannot be written")
    seconds = parse_duration(request.budget or DEFAULT_BUDGET)
    count, threads = available_workers(2 * len(_SCALES), config.execution.device, workers)
    resources = Resources(count, threads, seconds, time.monotonic())
    arm = RequestedArm("rates", {}, config)
    with tempfile.TemporaryDirectory(prefix="hairpin-find-lr-") as folder:
        directory = ExperimentDirectory(Path(folder))
        experiment = _short_runs(arm, resources, progress)
        updates = experiment.config_of(tuning_trials(experiment.arms, [1.0])[0]).train.updates
        assert updates
        progress.notice(f"{experiment.model}; {resources.workers} runs at a time")
        with Workers(resources.workers, resources.threads) as pool:
            runner = TrialRunner(experiment, directory, pool, progress)
            runner.train("searching", tuning_trials(experiment.trained, experiment.scales))
            for _ in range(_MAX_FURTHER):
                if resources.seconds_left <= 0:
                    break
                runner.train("searching", list(trials_beyond_edges(experiment, directory)))
        (result,) = read_arms(experiment, directory)
        found = found_in(result, experiment.text, experiment.model, updates, page)
        _write_page(found, result, experiment, directory)
    return found


def _short_runs(arm: RequestedArm, resources: Resources, progress: Progress) -> Experiment:
    """Return an experiment of one arm, with runs as long as the search has time for."""
    from hairpin.experiments.prepare_arms import prepare_arms

    per_run = resources.seconds_left * resources.workers / _EXPECTED_RUNS
    watcher = Preparing(progress)
    comparable = prepare_arms([arm], per_run, "tokens", resources.threads, watcher)
    fits = per_run / comparable.seconds_per_run
    (prepared,) = comparable.arms
    if length_of(arm.config):
        whole = Experiment("compare", "", comparable.arms, ()).config_of(
            tuning_trials(comparable.arms, [1.0])[0]
        )
        assert whole.train.updates
        updates = int(whole.train.updates * min(_SHARE, fits))
        updates = min(whole.train.updates, max(updates, _MIN_UPDATES))
        length = {"train.updates": updates, "train.tokens": None, "train.epochs": None}
        shorter = RequestedArm(arm.name, {}, with_values(arm.config, length))
        comparable = prepare_arms([shorter], None, "tokens", resources.threads, watcher)
        (prepared,) = comparable.arms
    return Experiment("compare", comparable.text, (prepared,), (), _SCALES, model=comparable.model)


def _write_page(
    found: SuggestedRate, result: ArmResult, experiment: Experiment, directory: ExperimentDirectory
) -> None:
    from hairpin.reports.comparison import Comparison
    from hairpin.reports.comparison_plots import write_lr_plot
    from hairpin.reports.page.experiment_page import lr_page, rate_row

    comparison = Comparison(experiment, (result,), (), found.unit, ())
    picture = write_lr_plot(comparison, directory.plots, found.suggestion)
    rows = [rate_row(r.lr, r.mean, r.losses, diverged=r.diverged) for r in found.rates]
    title, *reasons = found.lines()
    words = [line for line in reasons if not line.startswith((" ", "page:"))]
    assert found.page
    write_atomically(found.page, lr_page([title, *words], rows, found.unit, picture).encode())


def found_in(
    result: ArmResult, text: str, model: str, updates: int, page: Path | None
) -> SuggestedRate:
    """Return the suggestion derived from finished runs.

    Raises:
        ConfigError: every run diverged.
    """
    rates = tuple(
        Rate(
            result.arm.peak_lr * scale,
            tuple(o.final[result.unit] for o in outcomes if result.unit in o.final),
            any(o.diverged or result.unit not in o.final for o in outcomes),
        )
        for scale, outcomes in sorted(result.tuning.items())
    )
    if all(rate.diverged for rate in rates):
        raise ConfigError(
            f"every rate from {format_lr(rates[0].lr)} to {format_lr(rates[-1].lr)} diverged; "
            "start lower with --lr, or look for another cause"
        )
    return SuggestedRate(text, model, result.unit, rates, suggest(rates), updates, page)


def suggest(rates: Sequence[Rate]) -> float:
    """Return the minimum of the parabola through the best rate and its two neighbours, over the
    log of the rate; the best itself if a neighbour is missing or diverged. Two digits.
    """
    at = min(range(len(rates)), key=lambda index: rates[index].mean)
    best = rates[at].lr
    if 0 < at < len(rates) - 1 and math.isfinite(rates[at - 1].mean + rates[at + 1].mean):
        lower, middle, upper = (rates[index].mean for index in (at - 1, at, at + 1))
        bend = lower - 2 * middle + upper
        if bend > 0:
            step = math.log(rates[at + 1].lr / best)
            best *= math.exp(step * 0.5 * (lower - upper) / bend)
    return float(f"{best:.1e}")
