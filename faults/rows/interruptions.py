"""SIGINT and SIGTERM in every phase of a run, once and twice."""

import itertools
import json
import signal
import time
from pathlib import Path
from random import Random

from faults.oracle import newest_step
from faults.plan import Phase, Plan
from faults.rig import UPDATES, Case, ChildProcess, Done, Rig
from faults.row import Row

_PHASES: tuple[Phase, ...] = ("start", "load", "update", "evaluation", "sample", "save")
# What is in reach of a run that was stopped in update 35 and ends after 60.
LAST_NUMBER = {"update": 20, "evaluation": 1, "save": 1}
STOPPED = 35
_MOST_SECONDS = 20.0
_CASES = list(itertools.product(_PHASES, (signal.SIGINT, signal.SIGTERM), (None, "same", "other")))


def signals(rig: Rig) -> Row:
    """A signal in some phase; in some cases a second one, of either kind, 50 ms later."""
    return Row(
        "signals",
        60,
        lambda number, rng, folder: _run(rig, *_CASES[number % len(_CASES)], rng, folder),
        "exit code 130 or 143 within 20 s; no update lost; the same run in the end",
    )


def _run(
    rig: Rig,
    phase: Phase,
    first: signal.Signals,
    second: str | None,
    rng: Random,
    folder: Path,
) -> list[str]:
    case = rig.case(folder) if phase == "start" else rig.stopped(folder, STOPPED)
    number = rng.randint(0, LAST_NUMBER.get(phase, 0))
    pause = 0.002 if phase == "save" else 0.2
    child = rig.go_on(case, Plan(announce=phase, announce_number=number, pause_seconds=pause))
    if not child.wait_for_announcement():
        return [f"it never came to its {phase}: {child.finish().last_line}"]
    sent = time.monotonic()
    child.send(first)
    if second:
        child.wait(0.05)
        other = signal.SIGINT if first == signal.SIGTERM else signal.SIGTERM
        child.send(first if second == "same" else other)
    done = child.finish()
    problems = left_well(done, first, time.monotonic() - sent)
    if phase not in ("start", "load"):
        problems += nothing_lost(case, child)
    problems += rig.finished(case)
    # A sample that a signal cut short is not written later.
    cut_short = {"oracle: other samples"} if phase == "sample" else set()
    return [problem for problem in problems if problem not in cut_short]


def left_well(done: Done, number: signal.Signals, seconds: float) -> list[str]:
    """How a process that was told to stop did not do so in time, with its code and one line."""
    problems = done.surprises()
    if done.code != 128 + number:
        problems.append(f"left with {done.code} after {number.name}: {done.last_line}")
    if seconds > _MOST_SECONDS:
        problems.append(f"left after {seconds:.0f} s")
    said = [line for line in done.err.splitlines() if line.startswith("hairpin: ")]
    if len(said) != 1:
        problems.append(f"said {len(said)} lines: {said}")
    return problems


def nothing_lost(case: Case, child: ChildProcess) -> list[str]:
    """Whether the last update that was recorded is not in the last checkpoint."""
    lines = (case.run / "metrics.jsonl").read_bytes().splitlines()
    made = [event["update"] for event in map(json.loads, lines) if event["event"] == "update"]
    saved = newest_step(case.run)
    if saved != made[-1] + 1 or saved > UPDATES:
        return [f"update {made[-1]} is recorded, and the checkpoint is of {saved} updates"]
    return []
