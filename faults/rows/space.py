"""A disk that is full, in three ways."""

import errno
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from faults.plan import Plan
from faults.rig import UPDATES, Case, Done, Rig
from faults.row import Row
from faults.rows.crashes import calls
from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.errors import HairpinError

_STOPPED = UPDATES - 5
_COMMITTED = f"step-{_STOPPED // 10 * 10:08d}"
_TMPFS_BYTES = 4_000_000
_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def no_space(rig: Rig) -> Row:
    """Writes that fail, a limit on the size of files, and a small file system."""
    return Row(
        "no space",
        60,
        lambda number, rng, folder: _WAYS[number % len(_WAYS)](rig, rng, folder),
        "the old checkpoint is whole; one clear error; after freeing, the same run",
    )


def _injected(rig: Rig, rng: Random, folder: Path) -> list[str]:
    """From some call on every call that needs space fails, or only that one."""
    case = rig.stopped(folder, _STOPPED)
    in_save = Plan(opens=f".tmp-step-{UPDATES:08d}")
    anywhere = Plan(whole_run=True)
    plan = rng.choice([in_save, anywhere])
    at_call = rng.randrange(len(calls(rig, plan, _STOPPED)))
    plan = Plan(
        opens=plan.opens,
        whole_run=plan.whole_run,
        fault="full",
        at_call=at_call,
        error=rng.choice(_ERRORS),
        error_once=rng.random() < 0.3,
    )
    done = rig.go_on(case, plan).finish()
    return [f"call {at_call} ({plan}): {line}" for line in _judge(rig, case, done)]


def _limited(rig: Rig, rng: Random, folder: Path) -> list[str]:
    """RLIMIT_FSIZE: no file may become larger."""
    case = rig.stopped(folder, _STOPPED)
    largest = (case.run / "checkpoints" / _COMMITTED / "optimizer.safetensors").stat().st_size
    limit = rng.randrange(1, largest)
    done = rig.go_on(case, Plan(most_file_bytes=limit)).finish()
    return [f"files of {limit} bytes at most: {line}" for line in _judge(rig, case, done)]


def _small_disk(rig: Rig, rng: Random, folder: Path) -> list[str]:
    """A tmpfs that is filled while a save is being written, or before it."""
    case = rig.stopped(folder, _STOPPED)
    with _on_tmpfs(case.run) as mounted:
        if not mounted:
            return []
        child = rig.go_on(case, Plan(announce="save", pause_seconds=0.002))
        if rng.random() < 0.7 and child.wait_for_announcement():
            child.wait(rng.uniform(0, 0.1))
        filler = case.run / "filler"
        _fill(filler)
        done = child.finish()
        filler.unlink()
        return [f"a full tmpfs: {line}" for line in _judge(rig, case, done)]


_WAYS = (_injected, _injected, _injected, _limited, _small_disk)


def _judge(rig: Rig, case: Case, done: Done) -> list[str]:
    """It failed with one line and nothing is lost, or it did not need what it did not get."""
    problems = done.surprises()
    said = [line for line in done.err.splitlines() if line.startswith("hairpin: ")]
    if done.code == 0:
        return problems + rig.differences(case)
    # 2: there was no room for the run when it began, which is said before anything is written.
    if done.code != 1 and not (done.code == 2 and "the disk is too small" in done.last_line):
        problems.append(f"left with {done.code}: {done.last_line}")
    if len(said) != 1:
        problems.append(f"said {len(said)} lines: {said}")
    kept = case.run / "checkpoints" / _COMMITTED
    try:
        open_checkpoint(kept)
    except HairpinError as damage:
        problems.append(f"the checkpoint before is damaged: {damage}")
    return problems + rig.finished(case)


@contextmanager
def _on_tmpfs(folder: Path) -> Iterator[bool]:
    """The folder's content on a small file system, where this process may mount one."""
    content = folder.rename(folder.with_name("content"))
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_BYTES}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None
    mounted = mounted and subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        print("no space: a tmpfs cannot be mounted here: skipped", file=sys.stderr)
    try:
        if mounted:
            shutil.copytree(content, folder, dirs_exist_ok=True)
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
