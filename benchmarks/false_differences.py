"""How often does a comparison find a difference that is not there, and one that is?

A pool of small runs is trained: each seed under an arm A, under A' whose learning rate differs by a
millionth (so that only rounding tells them apart, and nothing is better), and under B, whose rate
is 0.7 of A's. Then many experiments of a few seeds are drawn from the pool and judged as
`hairpin compare` judges: paired (the same seeds in both arms) and unpaired (other seeds in each).

    python -m benchmarks.false_differences --seeds 200 --out experiments/false-differences
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from hairpin.config.load import build_config, to_tree
from hairpin.experiments.arms import RequestedArm
from hairpin.experiments.prepare_arms import prepare_arms
from hairpin.experiments.runner import NoProgress, Preparing, available_workers
from hairpin.experiments.workers import Workers
from hairpin.reports.comparison import SIGNIFICANCE
from hairpin.reports.outcomes import BITS, outcome_of_run
from hairpin.reports.statistics import (
    Difference,
    min_detectable,
    paired_difference,
    unpaired_difference,
)
from hairpin.runs.experiment_folder import Experiment, ExperimentDirectory, Trial

PEAK_LR = 1.5e-2
ARMS: dict[str, dict[str, Any]] = {
    "A": {"schedule.peak_lr": PEAK_LR},
    "A'": {"schedule.peak_lr": PEAK_LR * (1 + 1e-6)},
    "B": {"schedule.peak_lr": 0.7 * PEAK_LR},
}
SETTINGS: dict[str, Any] = {
    "data.corpus": "python-docs", "tokenizer.kind": "bytes", "recipe": "modern",
    "model.layers": 2, "model.heads": 2, "model.width": 32, "model.context": 32,
    "train.tokens_per_update": 256, "train.updates": 150, "execution.precision": "float32",
    "evaluate.every_updates": 75, "evaluate.tokens": 16_384,
}  # fmt: skip
Test = Callable[[Sequence[float], Sequence[float]], Difference]


def main() -> None:
    """Train the pool, draw from it, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("experiments/false-differences"))
    asked = parser.parse_args()
    finals = trained_pool(asked.seeds, ExperimentDirectory(asked.out))
    (asked.out / "finals.json").write_text(json.dumps(finals, indent=1), encoding="utf-8")
    print("\n".join(table(finals, asked.draws)))


def trained_pool(seeds: int, directory: ExperimentDirectory) -> dict[str, list[float]]:
    """Final bits per byte of every arm, seed by seed; what is there is kept."""
    arms = [
        RequestedArm(name, {}, build_config(flags={**SETTINGS, **changes}))
        for name, changes in ARMS.items()
    ]
    workers, threads = available_workers(3 * seeds, "cpu")
    prepared = prepare_arms(arms, None, "updates", threads, Preparing(NoProgress())).arms
    experiment = Experiment("compare", "python-docs", prepared, tuple(range(seeds)), (1.0,))
    trials = [Trial(arm, 1.0, seed) for seed in range(seeds) for arm in prepared]
    wanted = [
        (directory.run_of(trial).path, to_tree(experiment.config_of(trial)))
        for trial in trials
        if not (directory.run_of(trial).path / "trial.json").exists()
    ]
    updates = SETTINGS["train.updates"]
    done = dict.fromkeys((folder for folder, _ in wanted), 0)
    with Progress(console=Console(stderr=True)) as progress, Workers(workers, threads) as team:
        task = progress.add_task("training", total=updates * len(wanted))

        def advance(folder: Path, count: int) -> None:
            done[folder] = count
            progress.update(task, completed=sum(done.values()))

        team.train(wanted, advance)
    return {
        arm.name: [
            outcome_of_run(directory.run_of(Trial(arm, 1.0, seed))).final[BITS]
            for seed in range(seeds)
        ]
        for arm in prepared
    }


def table(finals: dict[str, list[float]], draws: int) -> list[str]:
    """What share of experiments finds a difference, as Markdown. In the last column A' has, added,
    what `min_detectable` says so many seeds show four times out of five.
    """
    lines = [
        "| seeds | A, A', paired | unpaired | A, B, paired | unpaired | A, A' + d, paired |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    noise = statistics.stdev(b - a for a, b in zip(finals["A"], finals["A'"], strict=True))
    for count in (3, 5, 8):
        cells = [
            f"{share_found(finals['A'], finals[other], count, draws, is_paired=paired):.1%}"
            for other in ("A'", "B")
            for paired in (True, False)
        ]
        size = min_detectable(noise, count)
        planted = [value + size for value in finals["A'"]]
        share = share_found(finals["A"], planted, count, draws, is_paired=True)
        lines.append(f"| {count} | {' | '.join(cells)} | {share:.1%} (d = {size:.4f}) |")
    for other in ("A'", "B"):
        whole = paired_difference(finals["A"], finals[other])
        lines += ["", f"All {whole.count} pairs of A and {other}: {whole.mean:+.6f} bits per byte "
                  f"({whole.low:+.6f} to {whole.high:+.6f}), p = {whole.p:.2g}"]  # fmt: skip
    return lines


def share_found(
    base: Sequence[float], other: Sequence[float], count: int, draws: int, *, is_paired: bool
) -> float:
    """The share of experiments with `count` seeds an arm that call the difference real."""
    draw, found = random.Random(count), 0
    for _ in range(draws):
        seeds = draw.sample(range(len(base)), count if is_paired else 2 * count)
        first, second = seeds[:count], seeds[-count:]
        test: Test = paired_difference if is_paired else unpaired_difference
        result = test([base[s] for s in first], [other[s] for s in second])
        found += result.p < SIGNIFICANCE
    return found / draws


if __name__ == "__main__":
    main()
