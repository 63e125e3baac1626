"""Locks where the file system has no flock: a file names its holder, which may be gone, or in
another container, or a number that another process has by now.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from faults.plan import Plan
from faults.rig import UPDATES, Case, Rig
from faults.row import Row
from faults.rows.company import contents
from hairpin.runs.lock_holder import Holder

_STOPPED = UPDATES - 5
_NO_PROCESS = 2**22 - 1
_OLD_SECONDS = 3600.0
_UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
# A process in a container of its own; where none can be made, one that takes itself for such.
_HOLDER = """
import errno, fcntl, os, sys, time
from pathlib import Path
def refuse(descriptor, operation):
    raise OSError(errno.ENOTSUP, "Operation not supported")
fcntl.flock = refuse
from hairpin.runs import lock, lock_holder
lock._STALE_AFTER_SECONDS, lock._HEARTBEAT_SECONDS = 2.0, 0.1
if len(sys.argv) > 2:
    os.getpid = lambda: 1
    lock_holder._namespace = lambda: sys.argv[2]
    lock_holder._began = lambda pid: float(time.monotonic_ns())
    mine = lock_holder.Holder.own()
    lock_holder.Holder.own = classmethod(lambda cls: mine)
with lock.RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def locks_in_namespaces(rig: Rig) -> Row:
    """A resume, or another container, meets a file that stands for a lock."""
    how = "" if _can_unshare() else "; containers simulated, since unshare is not permitted here"
    return Row(
        "locks in namespaces",
        len(_CASES),
        lambda number, rng, folder: _CASES[number](rig, folder),
        f"refused in a line with nothing changed, or taken over and the same run{how}",
    )


@cache
def _can_unshare() -> bool:
    if shutil.which(_UNSHARE[0]) is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


class _Container:
    """A process that is number 1 of its own namespace and wants the lock of a run."""

    _count = 0

    def __init__(self, run: Path) -> None:
        _Container._count += 1
        command = [sys.executable, "-c", _HOLDER, str(run)]
        command = (
            [*_UNSHARE, *command] if _can_unshare() else [*command, f"pid:[{_Container._count}]"]
        )
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def holds(self) -> bool:
        """Wait until it has the lock, or has been refused."""
        assert self._process.stdout
        return self._process.stdout.readline() == "held\n"

    def end(self) -> str:
        """Kill it; returns what it printed as errors."""
        self._process.kill()
        return self._process.communicate()[1]


def _live_here(rig: Rig, folder: Path) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    plan = Plan(no_flock=True, announce="update", pause_seconds=1.5)
    first = rig.go_on(case, plan)
    if not first.wait_for_announcement():
        return [f"the first never came to an update: {first.finish().last_line}"]
    beside = Case(folder / "beside")
    beside.side.mkdir(parents=True)
    before = _without_signs_of_life(case.run)
    second = rig.start(beside, Plan(no_flock=True), "resume", str(case.run)).finish()
    problems = _refused(second.code, second.err)
    if _without_signs_of_life(case.run) != before:
        problems.append("the second changed something")
    done = first.finish()
    if done.code != 0:
        problems.append(f"the first left with {done.code}: {done.last_line}")
    return problems + rig.differences(case)


def _live_in_a_container(rig: Rig, folder: Path) -> list[str]:
    case = rig.stopped(folder, _STOPPED)
    first = _Container(case.run)
    try:
        if not first.holds():
            return [f"the container did not get the lock: {first.end()}"]
        before = _without_signs_of_life(case.run)
        done = rig.start(case, Plan(no_flock=True), "resume", str(case.run)).finish()
        problems = _refused(done.code, done.err)
        if "another container" not in done.err:
            problems.append(f"the line does not say where it is: {done.last_line}")
        if _without_signs_of_life(case.run) != before:
            problems.append("the second changed something")
        return problems
    finally:
        first.end()


def _twins(rig: Rig, folder: Path) -> list[str]:
    """Two containers of one host name, both with number 1; then the first is started again."""
    case = rig.stopped(folder, _STOPPED)
    containers = [_Container(case.run)]
    try:
        if not containers[0].holds():
            return ["the container did not get the lock"]
        containers.append(_Container(case.run))
        if containers[1].holds():
            return ["two have the lock"]
        containers[0].end()
        containers.append(_Container(case.run))
        return [] if containers[2].holds() else ["a container that was started again is kept out"]
    finally:
        for container in containers:
            container.end()


def _left(is_taken_over: bool, make: Callable[[], bytes]) -> Callable[[Rig, Path], list[str]]:
    """A case in which a file was left over."""

    def run(rig: Rig, folder: Path) -> list[str]:
        case = rig.stopped(folder, _STOPPED)
        held = case.run / ".lock.held"
        held.write_bytes(make())
        os.utime(held, (time.time() - _OLD_SECONDS,) * 2)
        before = contents(case.run)
        done = rig.start(case, Plan(no_flock=True), "resume", str(case.run)).finish()
        if not is_taken_over:
            same = contents(case.run) == before
            return _refused(done.code, done.err) + ([] if same else ["something has changed"])
        problems = done.surprises()
        if done.code != 0:
            return [*problems, f"not taken over: left with {done.code}: {done.last_line}"]
        return problems + rig.differences(case)

    return run


def _as_now(**changes: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({**json.loads(Holder.own().as_bytes()), **changes}).encode()


def _as_before(pid: Callable[[], int]) -> Callable[[], bytes]:
    """The format of earlier versions."""
    return lambda: json.dumps({"host": Holder.own().host, "pid": pid()}).encode()


_CASES: tuple[Callable[[Rig, Path], list[str]], ...] = (
    _live_here,
    _live_in_a_container,
    _twins,
    _left(True, _as_now(began=1.0)),  # the number of a live process, given again
    _left(True, _as_now(boot="another")),
    _left(True, lambda: b""),
    _left(True, lambda: b'{"host": "h", "pi'),
    _left(False, _as_now(host="elsewhere", boot="another")),
    _left(True, _as_before(lambda: _NO_PROCESS)),
    _left(False, _as_before(os.getpid)),
)


def _refused(code: int, err: str) -> list[str]:
    if code != 2 or len(err.splitlines()) != 1 or "in use by" not in err:
        return [f"not refused in a line: left with {code}: {err!r}"]
    return []


def _without_signs_of_life(run: Path) -> dict[str, bytes]:
    return {path: content for path, (_, content) in contents(run).items()}
