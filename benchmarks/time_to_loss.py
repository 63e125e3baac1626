"""How long does `modern` take to get where `gpt2` gets in a given time?

An update of each recipe is timed first, in turns. Then each is trained for as many updates as fit
its time, with a schedule of that length, so that the result does not depend on what else the
machine does meanwhile. `gpt2` gets the best of several learning rates on each text, `modern` its
default.

    python -m benchmarks.time_to_loss --seconds 45 --seeds 3 stdlib python-docs FOLDER
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.budget_choices import time_candidate, train_candidate
from hairpin.config.load import build_config

TUNED_LRS = (1.2e-3, 2.4e-3, 5e-3)
SHARES = (1 / 2, 1 / 3, 1 / 4)
ROUNDS = 3
# Student's t, two-sided 95%, for as many degrees of freedom.
T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
CORPORA = ("stdlib", "python-docs", "verdict")


@dataclass(frozen=True)
class Arm:
    """A recipe, the share of the time that it gets, and its peak learning rate (None: its own)."""

    recipe: str
    share: float
    peak_lr: float | None = None


@dataclass(frozen=True)
class Trial:
    """One training to be done."""

    text: str
    arm: Arm
    seed: int
    updates: int
    settings: dict[str, Any]


def main() -> None:
    """Time, train, compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="training time of gpt2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16, of both")
    parser.add_argument("--results", type=Path, default=Path("time-to-loss.json"))
    parser.add_argument("--out", type=Path, help="a page in Markdown")
    parser.add_argument(
        "--timed", type=Path, help="results whose times of an update are used again"
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="corpora by name, files, folders")
    asked = parser.parse_args()
    rows = []
    # All of it first: what is trained afterwards does not depend on what else the machine does.
    timed = times_in(asked.timed) if asked.timed else {}
    timed = {text: timed.get(text) or time_recipes(text, asked) for text in asked.texts}
    for text, seconds in timed.items():
        tuning = [trial_of(text, Arm("gpt2", 1.0, lr), 0, seconds, asked) for lr in TUNED_LRS]
        tuned = dict(zip(TUNED_LRS, run_all(tuning, f"{text}: gpt2's rate"), strict=True))
        best_lr = min(tuned, key=lambda lr: tuned[lr])
        arms = [Arm("gpt2", 1.0, best_lr), *(Arm("modern", share) for share in SHARES)]
        trials = [
            trial_of(text, arm, seed, seconds, asked) for arm in arms for seed in range(asked.seeds)
        ]
        results = iter(run_all(trials, text))
        rows.append(
            {
                "text": text,
                "seconds_per_update": seconds,
                "gpt2_lrs": tuned,
                "gpt2_lr": best_lr,
                "bits_per_byte": [[next(results) for _ in range(asked.seeds)] for _ in arms],
            }
        )
        asked.results.write_text(json.dumps({"seconds": asked.seconds, "rows": rows}, indent=1))
    page = "\n".join(page_of(rows, asked.seconds))
    print(page)
    if asked.out:
        asked.out.write_text(page + "\n", encoding="utf-8")


def settings_of(text: str, recipe: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What both recipes have in common, and which one it is."""
    source = {"data.corpus": text} if text in CORPORA else {"data.texts": [text]}
    return {
        **source, "recipe": recipe, "model.size": asked.size,
        "execution.precision": asked.precision, "schedule.kind": "cosine",
        "train.tokens_per_update": 2048,
    }  # fmt: skip


def time_recipes(text: str, asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of an update of each recipe: the median of rounds in turns."""
    times: dict[str, list[float]] = {"gpt2": [], "modern": []}
    for _ in track(range(ROUNDS), f"{text}: timing"):
        for recipe, seen in times.items():
            seen.append(time_candidate(settings_of(text, recipe, asked))[1])
    return {recipe: statistics.median(seen) for recipe, seen in times.items()}


def times_in(results: Path) -> dict[str, dict[str, float]]:
    """Seconds of an update of each recipe on each text, as they were measured before."""
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    return {row["text"]: row["seconds_per_update"] for row in rows}


def trial_of(
    text: str, arm: Arm, seed: int, per_update: dict[str, float], asked: argparse.Namespace
) -> Trial:
    """The training of an arm in its share of the time."""
    updates = max(20, int(asked.seconds * arm.share / per_update[arm.recipe]))
    settings = settings_of(text, arm.recipe, asked) | {"train.seed": seed}
    if arm.peak_lr:
        settings["schedule.peak_lr"] = arm.peak_lr
    return Trial(text, arm, seed, updates, settings)


def run_all(trials: list[Trial], title: str) -> list[float]:
    """Validation bits per byte of each; as many at a time as there are cores, one thread each."""
    os.environ["OMP_NUM_THREADS"] = "1"
    # Not forked: OpenMP's threads of the timing before do not live on in a copy of this process.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        return list(track(pool.map(run_trial, trials), title, total=len(trials)))


def run_trial(trial: Trial) -> float:
    """Train once."""
    return train_candidate(build_config(flags=trial.settings), trial.updates)


def page_of(rows: list[dict[str, Any]], seconds: float) -> Iterator[str]:
    """The results as Markdown."""
    yield f"| text | `gpt2`, {seconds:g} s |" + "".join(
        f" `modern`, {seconds * share:.3g} s | fewer bits |" for share in SHARES
    )
    yield "| --- | --- |" + " --- | --- |" * len(SHARES)
    for row in rows:
        base, *others = row["bits_per_byte"]
        cells = [Path(row["text"]).name, interval(base)]
        for bits in others:
            cells += [interval(bits), interval([b - o for b, o in zip(base, bits, strict=True)])]
        yield "| " + " | ".join(cells) + " |"


def interval(values: list[float]) -> str:
    """Mean ± half of its 95% interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
