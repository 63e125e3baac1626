"""Prove that a run that is killed and resumed ends in the same bits here, by killing one.

    clean     trained uninterrupted; its config has every choice filled in
    killed    the same config, killed with SIGKILL again and again, and resumed

Each runs in a process of its own, as a user's would.
"""

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.load import build_config, with_values
from hairpin.config.settings import Config
from hairpin.errors import HairpinError
from hairpin.machine.threads import threads_of
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record

_SMALL = {
    "recipe": "gpt2",  # has dropout, whose random state a resume must restore
    "data.corpus": "python-docs",
    "tokenizer.kind": "bytes",
    "model.layers": 2,
    "model.heads": 4,
    "model.width": 64,
    "model.context": 64,
    "model.dropout": 0.1,
    "train.tokens_per_update": 1024,
    "execution.micro_batch": 8,
}
_POLL_SECONDS = 0.005
_MAX_LINES = 10


@dataclass(frozen=True)
class Kill:
    """One kill: the process was killed when its record had `after` updates; the next one resumed
    from update `went_on_from` and finished its first new update after `seconds_to_update`.
    """

    after: int
    went_on_from: int
    seconds_to_update: float


@dataclass(frozen=True)
class Proof:
    """The outcome of the comparison of the two runs.

    Args:
        config: of both runs, with every choice filled in.
        kills: those that happened before the run ended.
        compared: number of tensors and of updates that were compared.
        differences: a line each; empty if the runs are identical.
    """

    config: Config
    kills: tuple[Kill, ...]
    compared: tuple[int, int]
    differences: tuple[str, ...]

    @property
    def conditions(self) -> str:
        """The conditions under which the result was found and holds."""
        how = self.config.execution
        compiled = "compiled, " if how.compile == "on" else ""
        return (
            f"{how.device}, {how.precision}, {compiled}micro-batch {how.micro_batch}, torch "
            f"{torch.__version__}, {threads_of(self.config)} threads"
        )


def short_config(config: Path | None, updates: int) -> Config:
    """Build the config of a short run that enables everything a resume has to get right.

    Args:
        config: a file whose text, model, batches and device are used; None: a small built-in one.
        updates: length of the run, at least 6.
    """
    asked = build_config(file=config, flags=None if config else _SMALL)
    lengths = ("train.tokens", "train.epochs", "schedule.warmup_tokens", "schedule.warmup_fraction")
    decay = ("schedule.decay_updates", "schedule.decay_tokens", "schedule.decay_fraction")
    return with_values(
        asked,
        {
            **dict.fromkeys((*lengths, *decay)),
            "train.updates": updates,
            "schedule.warmup_updates": max(1, updates // 10),
            "schedule.extensions": (),
            "checkpoint.every_updates": max(1, updates // 6),
            "evaluate.every_updates": max(1, updates // 3),
            "evaluate.tokens": 4096,
            "evaluate.train_tokens": 1024,
            "evaluate.sample_tokens": 8,
            "execution.deterministic": True,
        },
    )


def prove_resume(
    config: Config,
    folder: Path,
    *,
    kills: int,
    seed: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proof:
    """Train one run uninterrupted and one with kills, and compare them.

    Args:
        config: of a short run.
        folder: an empty folder; both runs stay there.
        kills: number of kills, at random updates.
        seed: of the choice of these updates.
        on_progress: called with the updates done by both runs and their total.

    Raises:
        HairpinError: one of the runs failed without being killed.
    """
    updates = config.train.updates
    assert updates
    short, clean, killed = (RunDirectory(folder / name) for name in ("short", "clean", "killed"))
    short.path.mkdir()
    short.write_config(config)
    _run(_train(short, clean), clean, None, lambda done: on_progress(done, 2 * updates))
    targets = sorted(random.Random(seed).sample(range(1, updates), min(kills, updates - 1)))
    command, found, killed_after = _train(clean, killed), list[Kill](), 0
    for target in (*targets, None):
        went_on_from = _newest_step(killed)
        outcome = _run(
            command, killed, target, lambda done: on_progress(updates + done, 2 * updates)
        )
        if killed_after:
            found.append(Kill(killed_after, went_on_from, outcome.seconds_to_update))
        killed_after = outcome.updates
        if not outcome.was_killed:
            break
        command = ["resume", str(killed.path)]
    return Proof(clean.read_config(), tuple(found), *compare(clean, killed))


def compare(clean: RunDirectory, killed: RunDirectory) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return how many tensors and updates of two runs were compared, and a line per difference."""
    ours, theirs = (_last_tensors(run) for run in (clean, killed))
    lines = [_difference(name, ours.get(name), theirs.get(name)) for name in {**ours, **theirs}]
    before, after = (_updates(run) for run in (clean, killed))
    if len(before) != len(after):
        lines.append(
            f"the record: {len(before):,} updates uninterrupted, {len(after):,} with kills"
        )
    for one, other in zip(before, after, strict=False):
        if one != other:
            key = next(key for key in one if one[key] != other.get(key))
            values = f"{one[key]} uninterrupted, {other.get(key)} with kills"
            lines.append(f"update {one['update']}: {key} is {values}")
            break  # all that follow differ too
    different = [line for line in lines if line]
    if len(different) > _MAX_LINES:
        different[_MAX_LINES:] = [f"and {len(different) - _MAX_LINES:,} more"]
    return (len(ours), len(before)), tuple(different)


@dataclass(frozen=True)
class _Outcome:
    """The end of a process: updates in its record, and seconds until the first one it added."""

    updates: int
    was_killed: bool
    seconds_to_update: float


def _run(
    arguments: list[str], run: RunDirectory, target: int | None, on_updates: Callable[[int], None]
) -> _Outcome:
    """Run hairpin until its record has `target` updates, then kill it; None: let it finish.

    Raises:
        HairpinError: it failed without being killed.
    """
    log, begun, seconds = run.path.with_suffix(".log"), time.time(), math.nan
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hairpin", *arguments],  # -P: not from the working folder
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            done = _updates_recorded(run, since=begun)
            if done is None:  # the process has not added an update yet
                continue
            on_updates(done)
            seconds = time.time() - begun if math.isnan(seconds) else seconds
            if target is not None and done >= target:
                process.kill()
                process.wait()
                return _Outcome(_updates_recorded(run) or 0, True, seconds)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        said = "".join(last).removeprefix("hairpin: ")
        raise HairpinError(f"a run failed on its own (exit code {process.returncode}): {said}")
    return _Outcome(_updates_recorded(run) or 0, False, seconds)


def _train(like: RunDirectory, out: RunDirectory) -> list[str]:
    return ["train", "--config", str(like.config), "--out", str(out.path)]


def _updates_recorded(run: RunDirectory, since: float = 0.0) -> int | None:
    """Count the updates in a record that another process may be writing.

    Args:
        run: the run's folder.
        since: return None unless a process that began after this time, in seconds since 1970, has
            added an update.
    """
    try:
        lines = run.metrics.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    events = [json.loads(line) for line in lines]
    begun = [n for n, event in enumerate(events) if event["event"] in ("start", "resume")]
    new = events[begun[-1] :] if begun and events[begun[-1]]["time"] > since else []
    if not any(event["event"] == "update" for event in new):
        return None
    return len([event for event in events if event["event"] == "update"])


def _newest_step(run: RunDirectory) -> int:
    steps = CheckpointStore(run.checkpoints).steps()
    return int(steps[-1].name.removeprefix("step-")) if steps else 0


def _updates(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the update events of the record without their timing."""
    return [
        {key: value for key, value in event.items() if key != "tokens_per_second"}
        for event in read_record(run.metrics)
        if event["event"] == "update"
    ]


def _last_tensors(run: RunDirectory) -> dict[str, Tensor]:
    """Return every tensor of the last checkpoint, by group and name."""
    checkpoint = open_checkpoint(CheckpointStore(run.checkpoints).steps()[-1])
    return {
        f"{group}: {name}": tensor
        for group in checkpoint.groups()
        for name, tensor in checkpoint.tensors(group).items()
    }


def _difference(name: str, one: Tensor | None, other: Tensor | None) -> str | None:
    if one is None or other is None:
        return f"{name}: is in only one of the two"
    if one.shape == other.shape and torch.equal(_bytes(one), _bytes(other)):
        return None
    if one.shape != other.shape:
        return f"{name}: {list(one.shape)} uninterrupted, {list(other.shape)} with kills"
    largest = (one.double() - other.double()).abs().max()
    return f"{name}: differs by up to {largest:.3g}"


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)
