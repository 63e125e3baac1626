"""Files that are whole and cannot be read now, and files that are replaced while they are read."""

import errno
import os
import shutil
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from random import Random

import torch

from faults.plan import Plan
from faults.rig import UPDATES, Rig
from faults.row import Row
from hairpin.checkpoints.snapshot import Snapshot
from hairpin.checkpoints.store import CheckpointStore
from hairpin.runs.folder import RunDirectory
from hairpin.training.checkpoint import load_weights

_STOPPED = UPDATES - 5
_COMMITTED = _STOPPED // 10 * 10
_NEWEST = f"checkpoints/step-{_COMMITTED:08d}"
_ERRORS = (
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
)
_OF_NEWEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "rng.safetensors",
    "guard.safetensors",
    "state.json",
    "config.toml",
)
# As many as have no common divisor with the errors, so that all meet all.
_PLACES = (
    *(f"{_NEWEST}/{name}" for name in ("manifest.json", *_OF_NEWEST)),
    "checkpoints",
    "best/manifest.json",
    "best/model.safetensors",
    "config.toml",
    "metrics.jsonl",
    "tokenizer/hairpin.json",
)
_LOADS = 60
_PROCESSES = get_context("forkserver")


def unreadable(rig: Rig) -> Row:
    """At a resume a file, or the folder of checkpoints, gives an error that is not of its bytes."""
    return Row(
        "unreadable checkpoints",
        40,
        lambda number, rng, folder: _unreadable(rig, number, rng, folder),
        "one line; nothing in the run changes; the same run once it can be read",
    )


def replaced(rig: Rig) -> Row:
    """A process reads the best weights, or the newest, while another replaces and deletes them."""
    del rig
    return Row(
        "best replaced while read",
        10,
        lambda number, rng, folder: _replaced(folder, ("best", "last")[number % 2]),
        "each time one checkpoint's weights, all of them",
    )


def _unreadable(rig: Rig, number: int, rng: Random, folder: Path) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    place, error = _PLACES[number % len(_PLACES)], _ERRORS[number % len(_ERRORS)]
    # What is verified is read once more to be used: some errors come only then.
    again = Path(place).name in _OF_NEWEST and place.startswith(_NEWEST) and rng.random() < 0.5
    if not again:
        left = case.run / "checkpoints" / f".tmp-step-{UPDATES:08d}"
        shutil.copytree(case.run / _NEWEST, left, dirs_exist_ok=True)
    before = _tree(case.run)
    done = rig.go_on(case, Plan(unreadable=place, error=error, readable_first=int(again))).finish()
    problems = done.surprises()
    said = [line for line in done.err.splitlines() if line.startswith("hairpin: ")]
    if done.code not in (1, 2) or len(said) != 1:
        problems.append(f"left with {done.code}, saying {said}")
    elif str(case.run / place) not in said[0] or os.strerror(error) not in said[0]:
        problems.append(f"does not say what it is: {said[0]}")
    problems += [f"changed: {name}" for name in _changed(before, _tree(case.run))]
    problems += rig.finished(case, begins=_COMMITTED)
    problems += [f"set aside: {path.name}" for path in case.run.rglob(".bad-*")]
    when = "the second time" if again else "at once"
    return [f"{place}, {errno.errorcode[error]}, {when}: {each}" for each in problems]


def _tree(run: Path) -> dict[str, bytes]:
    """Everything in a run but the lock, which each process takes."""
    return {
        str(path.relative_to(run)): path.read_bytes() if path.is_file() else b""
        for path in run.rglob("*")
        if path.name != ".lock"
    }


def _changed(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]


def _replaced(folder: Path, which: str) -> list[str]:
    run = RunDirectory(folder / "run")
    run.path.mkdir(parents=True)
    writer = _PROCESSES.Process(target=replace_for_ever, args=(run.path,), daemon=True)
    writer.start()
    try:
        while not run.best.exists() and writer.is_alive():
            writer.join(0.01)
        found = [_loaded(run, which) for _ in range(_LOADS)]
        alive = writer.is_alive()
    finally:
        writer.kill()
        writer.join()
    problems = [words for _, words in found if words]
    steps = [step for step, _ in found]
    if not alive or steps[0] == steps[-1] or steps != sorted(steps):
        problems.append(f"nothing was replaced meanwhile, or it went back: {steps}")
    return problems


def _loaded(run: RunDirectory, which: str) -> tuple[int, str]:
    """The step that the weights say they are of; and what is wrong with them."""
    tensors, words = load_weights(run, which)
    step = int(words.rpartition(" ")[2])
    if not words.startswith(which):
        return step, f"{which} asked, {words} given"
    if any(not torch.equal(t, torch.full_like(t, float(step))) for t in tensors.values()):
        return step, f"{words}: other numbers are in them"
    return step, ""


def replace_for_ever(path: Path) -> None:
    """Commit one step after the other, each the best and the only one that stays."""
    run = RunDirectory(path)
    store = CheckpointStore(run.checkpoints, keep=1, best=run.best)
    for step in count(1):
        weights = {name: torch.full((300, 200), float(step)) for name in "abcd"}
        store.save(Snapshot(step, {"model": weights}, {"step": step}), is_best=True)
