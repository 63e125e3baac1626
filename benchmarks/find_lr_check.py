"""Is what `hairpin find-lr` suggests near the best learning rate of runs of full length?

The search, with its short runs, is done first; then runs of full length at rates a factor of √2
apart, two seeds each, from a quarter to four times the default rate.

    python -m benchmarks.find_lr_check --updates 400 --size nano stdlib python-docs
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hairpin.experiments import api
from hairpin.experiments.arms import RequestedArm
from hairpin.experiments.prepare_arms import prepare_arms
from hairpin.experiments.runner import (
    NoProgress,
    Preparing,
    TrialRunner,
    available_workers,
    tuning_trials,
)
from hairpin.experiments.workers import Workers
from hairpin.launch.request import Request, requested_config
from hairpin.reports.comparison import read_arms
from hairpin.reports.formats import format_lr
from hairpin.reports.terminal.experiment import ExperimentBar
from hairpin.runs.experiment_folder import Experiment, ExperimentDirectory

FINE = tuple(2 ** (step / 2) for step in range(-4, 5))


def main() -> None:
    """Search, train the fine grid, and print both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--size", default="nano")
    parser.add_argument("--recipe", default="modern")
    parser.add_argument("--budget", default="3m")
    parser.add_argument("corpora", nargs="+")
    asked = parser.parse_args()
    print("| text | suggestion | best of the fine grid | ratio | bits per byte lost |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for corpus in asked.corpora:
        print(f"| {corpus} | {' | '.join(row(corpus, asked))} |", flush=True)


def row(corpus: str, asked: argparse.Namespace) -> Iterator[str]:
    """Suggestion, best rate, their ratio, and what the suggestion loses, between grid points."""
    settings = {
        "recipe": asked.recipe, "model.size": asked.size, "train.updates": asked.updates,
        "execution.precision": "float32",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, ExperimentBar() as progress:
        found = api.find_lr(
            corpus=corpus, settings=settings, budget=asked.budget,
            out=Path(folder) / "page.html", progress=progress,
        )  # fmt: skip
        losses = fine_grid(Request(settings={**settings, "data.corpus": corpus}), Path(folder))
    best = min(losses, key=lambda lr: losses[lr])
    yield format_lr(found.suggestion)
    yield format_lr(best)
    yield f"{found.suggestion / best:.2f}"
    yield f"{between(losses, found.suggestion) - losses[best]:.4f}"


def fine_grid(request: Request, folder: Path) -> dict[float, float]:
    """Peak learning rate → final bits per byte of runs of full length; infinite if one diverged."""
    workers, threads = available_workers(2 * len(FINE), "cpu")
    arm = RequestedArm("fine", {}, requested_config(request))
    prepared = prepare_arms([arm], None, "tokens", threads, Preparing(NoProgress())).arms
    experiment = Experiment("compare", "", prepared, (), FINE)
    directory = ExperimentDirectory(folder / "fine")
    with Workers(workers, threads) as pool, ExperimentBar() as progress:
        runner = TrialRunner(experiment, directory, pool, progress)
        runner.train("fine grid", tuning_trials(prepared, FINE))
    (result,) = read_arms(experiment, directory)
    return {
        prepared[0].peak_lr * scale: statistics.fmean(o.final[result.unit] for o in outcomes)
        if all(o.final for o in outcomes)
        else math.inf
        for scale, outcomes in result.tuning.items()
    }


def between(losses: dict[float, float], lr: float) -> float:
    """The loss at a rate, on the line between its neighbours in the grid."""
    rates = sorted(losses)
    if lr <= rates[0] or lr >= rates[-1]:
        return losses[rates[0] if lr <= rates[0] else rates[-1]]
    above = next(index for index, rate in enumerate(rates) if rate >= lr)
    low, high = rates[above - 1], rates[above]
    share = math.log(lr / low) / math.log(high / low)
    return losses[low] + share * (losses[high] - losses[low])


if __name__ == "__main__":
    main()
