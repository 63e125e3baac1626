"""Losses that are not finite, or a million times too high, in some batches of the data."""

import itertools
import json
import math
import signal
from pathlib import Path
from random import Random

import numpy as np

from faults.oracle import UnclearError, oracle_of, tensors_of
from faults.plan import Plan
from faults.rig import UPDATES, Case, Done, Rig
from faults.row import Row

_MOST_SKIPS = 3  # also the number of rewinds: the defaults of both
_LENGTHS = (1, _MOST_SKIPS, _MOST_SKIPS + 1)
_NOT_FINITE = (math.nan, math.inf, -math.inf)
_NON_FINITE_CASES = list(itertools.product(("skip", "stop", "rewind"), _LENGTHS))
_SPIKE = 1e6
_SPIKE_WINDOW = 16


def non_finite(rig: Rig) -> Row:
    """One, three or four batches in a row give a NaN or an infinity."""
    return Row(
        "non-finite",
        40,
        lambda number, rng, folder: _non_finite(
            rig, *_NON_FINITE_CASES[number % len(_NON_FINITE_CASES)], rng, folder
        ),
        "skipped: weights and moments the same bytes; too many: it stops, and nothing bad is saved",
    )


def spikes(rig: Rig) -> Row:
    """A loss is a million times as high, also just after a resume."""
    return Row(
        "spikes",
        20,
        lambda number, rng, folder: _spike(
            rig, ("skip", "rewind", "record")[number % 3], rng, folder
        ),
        "the same decision, and the same run, as without a kill",
    )


def _non_finite(rig: Rig, action: str, length: int, rng: Random, folder: Path) -> list[str]:
    first = rng.randrange(11, UPDATES - 6)
    bad = tuple((first + at, rng.choice(_NOT_FINITE)) for at in range(length))
    plan = Plan(loss_factors=bad)
    # Every update is saved, so that what an update changed can be seen.
    often = ("checkpoint.every_updates=1", "checkpoint.keep=100") if action != "rewind" else ()
    case = rig.case(folder, f"guard.on_non_finite={action}", *often)
    done = rig.go_on(case, plan).finish()
    problems = [*done.surprises(), *_not_finite_on_disk(case)]
    stops = action == "stop" or length > _MOST_SKIPS
    problems += _stopped(done) if stops else _went_through(case, done)
    if action == "skip":
        problems += _untouched(case, first, min(length, _MOST_SKIPS))
    if stops:
        problems += _ends_once_it_is_gone(rig, case, action)
    return [f"{action}, batches {first} to {first + length - 1}: {each}" for each in problems]


def _spike(rig: Rig, action: str, rng: Random, folder: Path) -> list[str]:
    batch = rng.randrange(_SPIKE_WINDOW + 5, UPDATES - 5)
    plan = Plan(loss_factors=((batch, _SPIKE),))
    settings = (f"guard.on_spike={action}", f"guard.spike_window={_SPIKE_WINDOW}")
    whole = rig.case(folder / "whole", *settings)
    done = rig.go_on(whole, plan).finish()
    problems = _went_through(whole, done)
    incident = {"record": "spike"}.get(action, action)
    # The text may have one of its own: where it begins again, words run together.
    if batch not in [event["update"] for event in _events(whole, incident)]:
        problems.append(f"no {incident} at update {batch}")
    killed = rig.case(folder / "killed", *settings)
    # Half of them go on right before the spike.
    dies = batch if rng.random() < 0.5 else rng.randrange(1, UPDATES)
    code = (
        rig.go_on(killed, Plan(loss_factors=plan.loss_factors, dies_in_update=dies)).finish().code
    )
    if code != -signal.SIGKILL:
        problems.append(f"the kill did not come: left with {code}")
    problems += _went_through(killed, rig.go_on(killed, plan).finish())
    if not problems:
        problems += _differences(whole, killed, rewound=action == "rewind")
    return [f"{action}, batch {batch}, killed in update {dies}: {each}" for each in problems]


def _differences(one: Case, other: Case, *, rewound: bool) -> list[str]:
    try:
        oracles = [oracle_of(case.run, case.ids, UPDATES, rewound=rewound) for case in (one, other)]
    except UnclearError as problem:
        return [str(problem)]
    return oracles[0].differences(oracles[1])


def _went_through(case: Case, done: Done) -> list[str]:
    """It finished, with every update once."""
    if done.code != 0:
        return [f"left with {done.code}: {done.last_line}"]
    updates = [event["update"] for event in _events(case, "update")]
    return [] if updates == list(range(UPDATES)) else [f"the record has {len(updates)} updates"]


def _stopped(done: Done) -> list[str]:
    said = [line for line in done.err.splitlines() if line.startswith("hairpin: ")]
    if done.code != 1 or len(said) != 1:
        return [f"left with {done.code}, saying {said}"]
    return []


def _ends_once_it_is_gone(rig: Rig, case: Case, action: str) -> list[str]:
    """A resume in which nothing goes wrong is as if nothing had, where nothing was left out."""
    if action == "stop":
        return rig.finished(case)
    return _went_through(case, rig.go_on(case).finish())


def _untouched(case: Case, first: int, length: int) -> list[str]:
    before, after = (_bytes(case, step) for step in (first, first + length))
    return [] if before == after else ["a skipped update changed weights or moments"]


def _bytes(case: Case, step: int) -> list[object]:
    folder = case.run / "checkpoints" / f"step-{step:08d}"
    return [list(tensors_of(folder / f"{name}.safetensors")) for name in ("model", "optimizer")]


def _not_finite_on_disk(case: Case) -> list[str]:
    return [
        f"{path.parent.name}/{path.name}: {name} is not finite"
        for path in sorted(case.run.rglob("*.safetensors"))
        for name, kind, _, content in tensors_of(path)
        if kind == "F32" and not np.isfinite(np.frombuffer(content, np.float32)).all()
    ]


def _events(case: Case, kind: str) -> list[dict[str, int]]:
    lines = (case.run / "metrics.jsonl").read_bytes().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
