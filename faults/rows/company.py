"""A second process in the run's folder, locks that dead processes left, clocks that are wrong."""

import os
from pathlib import Path
from random import Random

from faults.plan import Plan
from faults.rig import UPDATES, Case, Rig
from faults.row import Row

_STOPPED = UPDATES - 5
_COMMITTED = _STOPPED // 10 * 10
_DAY_SECONDS = 86_400.0
_LOCKS = (b"", b"\0" * 100, b'{"host": "elsewhere", "pid": 1}', b"not json", b"[" * 100_000)


def locks(rig: Rig) -> Row:
    """While one process trains, another wants to; or a lock file is left over."""
    return Row(
        "locks",
        30,
        lambda number, rng, folder: (_second, _stale)[number % 2](rig, rng, folder),
        "a second process changes nothing and leaves with code 2; a stale lock is taken over",
    )


def clocks(rig: Rig) -> Row:
    """The clock has gone back a day, or forward ten years, and files' times mean nothing."""
    return Row(
        "clocks",
        10,
        lambda number, rng, folder: _clock(rig, number, rng, folder),
        "the newest is the highest step; the same run",
    )


def _second(rig: Rig, rng: Random, folder: Path) -> list[str]:
    case, beside = rig.stopped(folder, _STOPPED), Case(folder / "beside")
    plan = Plan(announce=rng.choice(["update", "load"]), pause_seconds=1.5)
    first = rig.go_on(case, plan)
    if not first.wait_for_announcement():
        return [f"the first never came to its {plan.announce}: {first.finish().last_line}"]
    before = contents(case.run)
    beside.side.mkdir(parents=True)
    verbs = (["resume", str(case.run)], ["train", str(rig.text), "--out", str(case.run)])
    second = rig.start(beside, Plan(), *rng.choice(verbs)).finish()
    problems = second.surprises()
    if second.code != 2 or len(second.err.splitlines()) != 1:
        problems.append(f"the second left with {second.code}: {second.err!r}")
    if contents(case.run) != before:
        problems.append("the second changed something")
    done = first.finish()
    if done.code != 0:
        problems.append(f"the first left with {done.code}: {done.last_line}")
    return problems + rig.differences(case)


def _stale(rig: Rig, rng: Random, folder: Path) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    if rng.random() < 0.7:  # else as the killed process left it
        (case.run / ".lock").write_bytes(rng.choice(_LOCKS))
    return rig.finished(case, begins=_COMMITTED)


def _clock(rig: Rig, number: int, rng: Random, folder: Path) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    for path in case.run.rglob("*"):
        moment = rng.uniform(0, 2e9)
        os.utime(path, (moment, moment))
    seconds = -_DAY_SECONDS if number % 2 else 3652 * _DAY_SECONDS
    # Half of them are killed once more under the wrong clock.
    dies = rng.choice([None, UPDATES - 3])
    done = rig.go_on(case, Plan(clock_seconds=seconds, dies_in_update=dies)).finish()
    problems = done.surprises()
    if dies is None:
        return problems + rig.differences(case)
    return problems + rig.finished(case, begins=_COMMITTED)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Path → time of change and bytes of every file below a folder."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }
