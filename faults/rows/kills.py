"""kill -9 at random times."""

import signal
from pathlib import Path
from random import Random

from faults.oracle import newest_step
from faults.plan import Plan
from faults.rig import UPDATES, Case, Child, Rig, lost
from faults.row import Row

_SHARE_IN_SAVES = 0.4
_MOST_KILLS = 3
_SAVES = UPDATES // 10
_SAVE_PAUSE_SECONDS = 0.001  # at each file-system call, of which a save has about sixty


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
    case = rig.case(folder)
    for _ in range(rng.randint(1, _MOST_KILLS)):
        in_save = rng.random() < _SHARE_IN_SAVES
        problems += _killed_in_save(rig, rng, case) if in_save else _killed(rig, rng, case)
    return problems + rig.finished(case)


def _killed(rig: Rig, rng: Random, case: Case) -> list[str]:
    """Kill it at some time of its whole life."""
    committed = newest_step(case.run)
    child = rig.go_on(case)
    child.wait(rng.uniform(0, rig.run_seconds))
    return _kill(child, case, committed)


def _killed_in_save(rig: Rig, rng: Random, case: Case) -> list[str]:
    """Kill it within a save, which is made slow so that it is hit."""
    committed = newest_step(case.run)
    left = (UPDATES - committed) // 10
    plan = Plan(
        announce="save",
        announce_number=rng.randrange(max(1, left)),
        pause_seconds=_SAVE_PAUSE_SECONDS,
    )
    child = rig.go_on(case, plan)
    child.wait_for_announcement()
    child.wait(rng.uniform(0, 80 * _SAVE_PAUSE_SECONDS))
    return _kill(child, case, committed)


def _kill(child: Child, case: Case, committed: int) -> list[str]:
    child.send(signal.SIGKILL)
    done = child.finish()
    problems = [*done.surprises(), *lost(case, child, committed)]
    if done.code not in (-signal.SIGKILL, 0):
        problems.append(f"left with {done.code}: {done.last_line}")
    return problems
