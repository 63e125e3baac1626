"""A crash, a torn write or a power cut at every single file-system call."""

import json
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

from faults.oracle import newest_step
from faults.plan import Fault, Plan
from faults.rig import UPDATES, Case, Rig
from faults.row import Row

_LATE = UPDATES - 5
# The thread of a save may be quicker than the record's next lines: of the last cases, whose calls
# then do not come before it, it is asked that nothing happens.
_RACED = 16
_FAULTS: tuple[Fault, ...] = ("before", "after", "torn", "power")


def crashes_in_save(rig: Rig) -> Row:
    """At each call of one save, of the best's replacement, and of the deletion of old ones."""
    return _row(rig, "crashes in a save", Plan(opens=f".tmp-step-{UPDATES:08d}"), _LATE)


def crashes_at_start(rig: Rig) -> Row:
    """At each call before the first update: config, lock, tokenizer, record."""
    return _row(rig, "crashes at the start", Plan(whole_run=True, closes=".tmp-step"), None)


def crashes_at_resume(rig: Rig) -> Row:
    """At each call of a resume, up to its first save."""
    return _row(rig, "crashes at a resume", Plan(whole_run=True, closes=".tmp-step"), _LATE)


def _row(rig: Rig, name: str, plan: Plan, stopped: int | None) -> Row:
    """A row with a case for each call and fault.

    Args:
        rig: makes the cases.
        name: of the row.
        plan: which calls count.
        stopped: the run was killed in this update before; None: it begins.
    """
    faults = [
        replace(plan, at_call=number, fault=fault)
        for number, call in enumerate(calls(rig, plan, stopped))
        for fault in _FAULTS
        if fault != "torn" or call == "write"
    ]

    def run(number: int, rng: Random, folder: Path) -> list[str]:
        case = _case(rig, folder, stopped)
        committed = newest_step(case.run)
        done = rig.go_on(case, faults[number]).finish()
        if done.code == 0 and number >= len(faults) - _RACED:
            return rig.finished(case, committed=committed)
        if done.code != -signal.SIGKILL:
            return [f"the crash did not come: left with {done.code}: {done.last_line}"]
        return done.surprises() + rig.finished(case, committed=committed)

    return Row(name, len(faults), run, "the previous or the new one is loaded; the same run")


def _case(rig: Rig, folder: Path, stopped: int | None) -> Case:
    return rig.case(folder) if stopped is None else rig.stopped(folder, stopped)


@cache
def calls(rig: Rig, plan: Plan, stopped: int | None) -> tuple[str, ...]:
    """The names of the calls that count in a plan.

    Args:
        rig: makes a case for it.
        plan: which they are.
        stopped: as above.
    """
    number = len(list(rig.folder.glob("calls-*")))
    case = _case(rig, rig.folder / f"calls-{number}", stopped)
    done = rig.go_on(case, replace(plan, log_calls=True)).finish()
    if done.code != 0:
        raise RuntimeError(f"the run whose calls are counted left with {done.code}: {done.err}")
    lines = (case.side / "calls.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)[1] for line in lines)
