"""How long does hairpin take to get where the best peer gets in a given time?

An update of every arm is timed first, in fresh processes that take turns, the peers' compiled. Then
each peer is trained by its own program for as many updates as fit the time, at the best of several
learning rates on each text; it gets a warmup, a cosine down to a tenth, AdamW's usual constants for
language models, and neither start-up nor compiling is counted against it. hairpin's default recipe
gets a part of the time. All have the same tokens, batch, layers, width, context, vocabulary and
validation text; hairpin's head is a matrix of its own, the peers' are tied to the embedding.

    python -m benchmarks.peers_to_loss --seconds 30 --seeds 3 stdlib python-docs FOLDER
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

import hairpin
from benchmarks.budget_choices import VALIDATION_TOKENS
from benchmarks.speed.peers import COMPILED, FUSED, HALF, Arm, environment, in_turn
from benchmarks.speed.processes import Processes, leave_on_sigterm
from benchmarks.time_to_loss import T95, Trial, interval, run_all, settings_of
from benchmarks.time_to_loss import Arm as OurArm
from hairpin.config.load import build_config
from hairpin.data.batches import Batches, Windows
from hairpin.model.shape import Shape
from hairpin.planning.measure.fill_run import fill_run

LITGPT = {"precision": "bf16-mixed", "fused": True}
# As they are timed; a training need not be compiled, as its length is counted in updates.
TIMED = (
    Arm("transformers, fused, compiled, bf16", "transformers", "gpt2", "bfloat16",
        FUSED | COMPILED | HALF),
    Arm("litgpt, fused, compiled, bf16-mixed", "litgpt", "gpt2", "bfloat16", LITGPT),
)  # fmt: skip
TRAINED: dict[str, dict[str, Any]] = {
    "transformers": FUSED | HALF,
    "litgpt": LITGPT | {"eager": True},
}
LRS = (6e-4, 1.2e-3, 2.4e-3, 5e-3)
RECIPE = {"min_share": 0.1, "beta2": 0.95, "weight_decay": 0.1}
SHARES = (1 / 3, 1 / 4)
TURNS = 3
TIMED_UPDATES = 30
FEWEST_UPDATES = 20


@dataclass(frozen=True)
class Text:
    """A text as all are given it.

    Args:
        name: a corpus, a file or a folder.
        folder: for what is made of it.
        shape: of the network, as GPT-2 has it.
        sequences: in an update.
        batches: of each seed.
        validation: a file of windows.
        validation_bytes: that their targets stand for.
    """

    name: str
    folder: Path
    shape: Shape
    sequences: int
    batches: dict[int, Batches]
    validation: Path
    validation_bytes: int

    def ids(self, seed: int, updates: int) -> np.ndarray[Any, Any]:
        """Tokens of a training, [updates, sequences, context + 1]."""
        inputs, targets = self.batches[seed].at(0, updates * self.sequences)
        whole = np.concatenate([inputs.numpy(), targets.numpy()[:, -1:]], 1)
        return whole.reshape(updates, self.sequences, -1)


def main() -> None:
    """Time, train, compare, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="training time of the peers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--precision", default="bfloat16", help="hairpin's")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="peers' environments")
    parser.add_argument("--out", type=Path, help="a page in Markdown")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="corpora by name, files, folders")
    asked = parser.parse_args()
    if not 2 <= asked.seeds <= max(T95) + 1:
        parser.error(f"--seeds: 2 to {max(T95) + 1}, for an interval")
    leave_on_sigterm()
    pythons = {arm.peer: environment(arm.peer, asked.folder.absolute()) for arm in TIMED}
    results = asked.folder / "peers-to-loss.json"
    with tempfile.TemporaryDirectory(prefix="hairpin-peers-") as name:
        texts = [
            as_given(text, Path(name) / str(number), asked)
            for number, text in enumerate(asked.texts)
        ]
        # All of it first: what is trained then does not depend on what else the machine does.
        seconds = [time_all(text, pythons, asked) for text in texts]
        rows = []
        for text, its_seconds in zip(texts, seconds, strict=True):
            rows.append(train_all(text, its_seconds, pythons, asked))
            results.write_text(json.dumps({"seconds": asked.seconds, "rows": rows}, indent=1))
    page = "\n".join(page_of(rows, asked.seconds))
    print(page)
    if asked.out:
        asked.out.write_text(page + "\n", encoding="utf-8")


def as_given(name: str, folder: Path, asked: argparse.Namespace) -> Text:
    """What hairpin itself would train `gpt2` on, and measure it on."""
    folder.mkdir()
    filled, ours = (
        fill_run(
            build_config(flags=settings_of(name, recipe, asked) | {"train.updates": 100}),
            None,
            hairpin.Quiet(),
        )
        for recipe in ("gpt2", "modern")
    )
    prepared, shape = filled.prepared, filled.shape
    for key in ("vocabulary", "context", "layers", "width"):
        assert getattr(shape, key) == getattr(ours.shape, key), key
    windows = Windows(prepared.val, shape.context, VALIDATION_TOKENS)
    pairs = [(x.numpy(), y.numpy()) for x, y in windows.batches(64)]
    inputs, targets = (np.concatenate(each) for each in zip(*pairs, strict=True))
    file = folder / "validation.npz"
    np.savez(file, inputs=inputs, targets=targets)
    token_bytes = prepared.tokenizer.token_bytes()
    seeds = range(asked.seeds)
    tokens = filled.config.train.tokens_per_update
    assert tokens
    return Text(
        name, folder, shape, tokens // shape.context,
        {seed: Batches(prepared.train, shape.context, seed) for seed in seeds},
        file, int(token_bytes[targets[targets >= 0]].sum()),
    )  # fmt: skip


def time_all(text: Text, pythons: dict[str, Path], asked: argparse.Namespace) -> dict[str, float]:
    """Seconds of an update of each: the median of turns, by two threads."""
    ready = Processes(_folder(text, "timing"), pythons, "cpu", 600.0)
    ways: dict[str, Callable[[], list[float]]] = {"hairpin": partial(time_hairpin, text, asked)}
    for arm in TIMED:
        job = ready.prepare(arm, text.shape, text.ids(0, TIMED_UPDATES), 1e-4)
        ways[arm.peer] = partial(time_peer, arm, ready, job)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in track(range(TURNS), f"{text.name}: timing"):
        for name in in_turn(list(ways), turn):
            times[name].append(statistics.median(ways[name]()))
    return {name: statistics.median(seen) for name, seen in times.items()}


def time_peer(arm: Arm, ready: Processes, job: Path) -> list[float]:
    """Seconds of the updates of a process, without the first."""
    seconds: list[float] = ready.run(arm, job)["seconds"]
    return seconds


def time_hairpin(text: Text, asked: argparse.Namespace) -> list[float]:
    """Seconds of the updates of a run of its own, by the command line, without the first."""
    settings = settings_of(text.name, "modern", asked) | {
        "train.updates": TIMED_UPDATES, "evaluate.every_updates": TIMED_UPDATES,
        "evaluate.tokens": 1024, "evaluate.sample_tokens": 0,
    }  # fmt: skip
    recipe, texts = settings.pop("recipe"), settings.pop("data.texts", [])
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = _folder(text, f"run-{len(list(text.folder.iterdir()))}") / "run"
    command = [
        sys.executable,
        "-P",
        "-m",
        "hairpin",
        "train",
        *texts,
        "--recipe",
        recipe,
        "--out",
        run,
    ]
    subprocess.run([*command, *sets], check=True, capture_output=True)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    updates = [event for event in events if event["event"] == "update"]
    return [update["tokens"] / update["tokens_per_second"] for update in updates[1:]]


def train_all(
    text: Text, seconds: dict[str, float], pythons: dict[str, Path], asked: argparse.Namespace
) -> dict[str, Any]:
    """Bits per byte of every peer at its best rate, and of hairpin in each share of the time."""
    # One thread each, beside another, compiling left out: ten times as long is long enough.
    limit = 300.0 + 10.0 * asked.seconds
    ready = Processes(_folder(text, "training"), pythons, "cpu", limit, threads=1)
    row: dict[str, Any] = {"text": text.name, "seconds_per_update": seconds, "peers": {}}
    for arm in TIMED:
        updates = max(FEWEST_UPDATES, int(asked.seconds / seconds[arm.peer]))
        tuned = train_peer(arm, text, ready, updates, [(lr, 0) for lr in LRS])
        best = min(range(len(LRS)), key=tuned.__getitem__)
        others = [(LRS[best], seed) for seed in range(1, asked.seeds)]
        bits = [tuned[best], *train_peer(arm, text, ready, updates, others)]
        row["peers"][arm.peer] = {
            "updates": updates, "lrs": dict(zip(LRS, tuned, strict=True)), "lr": LRS[best],
            "bits": bits,
        }  # fmt: skip
    row["hairpin"] = []
    for share in SHARES:
        updates = max(FEWEST_UPDATES, int(asked.seconds * share / seconds["hairpin"]))
        trials = [
            Trial(text.name, OurArm("modern", share), seed, updates,
                  settings_of(text.name, "modern", asked) | {"train.seed": seed})
            for seed in range(asked.seeds)
        ]  # fmt: skip
        row["hairpin"].append({"updates": updates, "bits": run_all(trials, f"{text.name}: ours")})
    return row


def train_peer(
    timed: Arm, text: Text, ready: Processes, updates: int, arms: Sequence[tuple[float, int]]
) -> list[float]:
    """Validation bits per byte for each learning rate and seed."""
    arm = replace(timed, flags=TRAINED[timed.peer])
    recipe = {**RECIPE, "warmup": max(1, round(0.05 * updates))}
    jobs = [
        ready.prepare(
            arm, text.shape, text.ids(seed, updates), lr, seed=seed, recipe=recipe,
            validation=text.validation,
        )
        for lr, seed in arms
    ]  # fmt: skip
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = [pool.submit(ready.run, arm, job) for job in jobs]
        try:
            found = [future.result() for future in track(futures, f"{text.name}: {arm.peer}")]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            ready.end_all()
            raise
    return [result["val_nats"] / math.log(2) / text.validation_bytes for result in found]


def _folder(text: Text, name: str) -> Path:
    folder = text.folder / name
    folder.mkdir()
    return folder


def page_of(rows: list[dict[str, Any]], seconds: float) -> Iterator[str]:
    """The results as Markdown, with updates and rates; differences are to the best peer, within
    seeds.
    """
    peers = [arm.peer for arm in TIMED]
    yield (
        "| text | "
        + " | ".join(f"{peer}, {seconds:g} s" for peer in peers)
        + " |"
        + "".join(f" hairpin, {seconds * share:.3g} s | fewer bits |" for share in SHARES)
    )
    yield "| --- |" + " --- |" * (len(peers) + 2 * len(SHARES))
    for row in rows:
        cells = [Path(row["text"]).name]
        for peer in peers:
            found = row["peers"][peer]
            cells.append(f"{interval(found['bits'])} ({found['updates']} at {found['lr']:g})")
        best = min((row["peers"][peer]["bits"] for peer in peers), key=statistics.mean)
        for ours in row["hairpin"]:
            gains = [b - o for b, o in zip(best, ours["bits"], strict=True)]
            cells += [f"{interval(ours['bits'])} ({ours['updates']})", interval(gains)]
        yield "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
