"""Whoever watches a run goes away: a closed terminal, a pipe without a reader, a full log disk."""

import itertools
import json
import signal
import time
from pathlib import Path
from random import Random

from faults.plan import Output, Phase, Plan
from faults.rig import Case, Done, Rig
from faults.row import Row
from faults.rows.interruptions import LAST_NUMBER, STOPPED, left_well, nothing_lost

_PHASES: tuple[Phase, ...] = ("start", "load", "update", "evaluation", "sample", "save")
_WITH_END: tuple[Phase, ...] = (*_PHASES, "summary")
_LOSSES: tuple[Output, ...] = ("pipe", "terminal", "log")
_NO_LOSS: tuple[Output, ...] = ("",)
_CASES = [
    *itertools.product(_NO_LOSS, _PHASES),
    *itertools.product(_LOSSES, _WITH_END),
]


def watching(rig: Rig) -> Row:
    """SIGHUP in some phase; or output that goes away in one, of which nobody tells the process."""
    return Row(
        "watching",
        60,
        lambda number, rng, folder: _run(rig, *_CASES[number % len(_CASES)], rng, folder),
        "SIGHUP: exit code 129 within 20 s, no update lost, the same run in the end; without it: "
        "the same run at once, exit code 0, and a note in the record",
    )


def _run(rig: Rig, output: Output, phase: Phase, rng: Random, folder: Path) -> list[str]:
    case = rig.case(folder) if phase == "start" else rig.stopped(folder, STOPPED)
    plan = Plan(
        announce=phase,
        announce_number=rng.randint(0, LAST_NUMBER.get(phase, 0)),
        pause_seconds=0.0 if output else 0.002 if phase == "save" else 0.2,
        output=output,
    )
    child = rig.go_on(case, plan)
    if not child.wait_for_announcement():
        return [f"it never came to its {phase}: {child.finish().last_line}"]
    if output:
        problems = _finished_unseen(rig, case, child.finish())
        return [f"{output}, {phase}: {problem}" for problem in problems]
    sent = time.monotonic()
    child.send(signal.SIGHUP)
    problems = left_well(child.finish(), signal.SIGHUP, time.monotonic() - sent)
    if phase not in ("start", "load"):
        problems += nothing_lost(case, child)
    problems += rig.finished(case)
    # A sample that a signal cut short is not written later.
    cut_short = {"oracle: other samples"} if phase == "sample" else set()
    return [f"SIGHUP, {phase}: {problem}" for problem in problems if problem not in cut_short]


def _finished_unseen(rig: Rig, case: Case, done: Done) -> list[str]:
    """It went on to its end, and the record says that nobody saw it."""
    problems = done.surprises()
    if done.code != 0:
        return [*problems, f"left with {done.code}: {done.last_line}"]
    if len(done.err.splitlines()) != 1:
        problems.append(f"said {done.err.splitlines()}")
    lines = map(json.loads, (case.run / "metrics.jsonl").read_bytes().splitlines())
    notes = [event["reason"] for event in lines if event["event"] == "unwatched"]
    if len(notes) != 1 or not notes[0].startswith("standard output: "):
        problems.append(f"noted {notes}")
    return problems + rig.differences(case)
