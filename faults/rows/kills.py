"""Nothing at all, and kill -9 at random times."""

import shutil
import signal
from pathlib import Path
from random import Random

from faults.oracle import newest_step
from faults.plan import Plan
from faults.rig import SAVE_EVERY, UPDATES, Case, ChildProcess, Rig, lost
from faults.row import Row

_SHARE_IN_SAVES = 0.4
_MOST_KILLS = 3
_SAVE_PAUSE_SECONDS = 0.001  # at each file-system call
_SAVE_SECONDS = 80 * _SAVE_PAUSE_SECONDS


def clean(rig: Rig) -> Row:
    """Nothing happens: what is the same then can be compared."""

    def run(number: int, rng: Random, folder: Path) -> list[str]:
        return rig.finished(rig.case(folder))

    return Row("clean", 5, run, "all of them are the same run")


def kills(rig: Rig) -> Row:
    """Each case is a run that is killed one to three times, then goes on to its end."""
    return Row(
        "kills",
        200,
        lambda number, rng, folder: _run(rig, rng, folder),
        "every resume begins at the last committed update or later; the same run in the end",
    )


def _run(rig: Rig, rng: Random, folder: Path) -> list[str]:
    problems: list[str] = []
    case, committed = rig.case(folder), 0
    wanted = rng.randint(1, _MOST_KILLS)
    while wanted:
        committed = max(committed, newest_step(case.run))
        in_save = rng.random() < _SHARE_IN_SAVES
        child = _start_to_be_killed_in_save(rig, rng, case) if in_save else rig.go_on(case)
        child.wait(rng.uniform(0, _SAVE_SECONDS if in_save else rig.run_seconds))
        child.send(signal.SIGKILL)
        done = child.finish()
        problems += [*done.surprises(), *lost(case, child, committed)]
        if done.code == 0:  # it had ended: begin again, so that every case is a kill
            shutil.rmtree(folder)
            case, committed = rig.case(folder), 0
            continue
        wanted -= 1
        if done.code != -signal.SIGKILL:
            problems.append(f"left with {done.code}: {done.last_line}")
    return problems + rig.finished(case, committed=committed)


def _start_to_be_killed_in_save(rig: Rig, rng: Random, case: Case) -> ChildProcess:
    """Start a process whose saves take long enough to be hit, and wait until it is in one."""
    left = (UPDATES - newest_step(case.run)) // SAVE_EVERY
    number = rng.randrange(max(1, left))
    plan = Plan(announce="save", announce_number=number, pause_seconds=_SAVE_PAUSE_SECONDS)
    child = rig.go_on(case, plan)
    child.wait_for_announcement()
    return child
