"""Checks before a run begins: its processes can train it together, its disk has room, and it starts
at update 0 only if nothing was lost.

A run that is killed before its first checkpoint has saved nothing, and begins again by itself. If
one has saved checkpoints and cannot find them (a folder that is not mounted, a wiped disk), only
its owner can declare them lost.
"""

import shutil
from collections.abc import Sequence

from hairpin.checkpoints.best import best_folder
from hairpin.config.settings import Config
from hairpin.errors import ConfigError, RunError
from hairpin.model.shape import Shape
from hairpin.planning.disk import disk_of
from hairpin.plugins.registry import BUILT_IN, KEYS
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import read_record
from hairpin.system.access import is_there
from hairpin.system.files import bytes_in
from hairpin.system.shell import command

# The line about a checkpoint is written before it is saved, once the outcome of the previous one
# is known. So this many lines may be about checkpoints of which none was committed.
_MAX_UNCOMMITTED = 2


def require_nothing_lost(run: RunDirectory, damaged: Sequence[str]) -> int:
    """Check that no checkpoint of the run was ever committed; return the number of updates in its
    record, which are repeated.

    Args:
        run: a run without an intact checkpoint.
        damaged: the problems of those that it has.

    Raises:
        RunError: one was committed. Nothing was changed.
        UnreadableError: that cannot be determined now.
    """
    saved = updates = 0
    for event in read_record(run.metrics):
        saved += event["event"] == "checkpoint"
        updates += event["event"] == "update"
    if damaged:
        what = f"none of its {len(damaged)} checkpoints is intact ({damaged[0]})"
    elif saved > _MAX_UNCOMMITTED or is_there(run.witness) or best_folder(run.best):
        what = f"its checkpoints are missing: there is none in {run.checkpoints}"
    else:
        return updates
    raise RunError(
        f"{run.path}: {what}, and its record has {updates:,} updates; nothing was changed: "
        "restore them, or mount their disk, or start again at update 0 with "
        f"`{command('resume', run.path, '--restart')}`"
    )


def require_disk(run: RunDirectory, config: Config, *, is_new: bool, restart: bool) -> None:
    """Check that the disk has room for the files that the run will keep.

    Args:
        run: its folder.
        config: filled in.
        is_new: True if nothing was trained yet.
        restart: True if saved files are set aside, and stay on disk.

    Raises:
        RunError: it does not.
    """
    model, optimizer = config.model.architecture, config.optimizer.kind
    if model not in BUILT_IN["model"] or optimizer not in BUILT_IN["optimizer"]:
        return  # the size of a plugin's state shows when it is saved
    assert config.tokenizer.vocabulary
    shape = Shape.of(config.model, config.tokenizer.vocabulary)
    there = 0 if restart else bytes_in(run.checkpoints, run.best)
    disk = disk_of(config, shape, shutil.disk_usage(run.path).free, there=there)
    if disk.fits:
        return
    ways = ["make space"]
    if config.checkpoint.keep > 1:
        where = "with --set checkpoint.keep=1" if is_new else f"by checkpoint.keep in {run.config}"
        ways.append(f"keep fewer checkpoints {where}")
    if is_new:
        ways.append("name another disk with --out")
    raise RunError(f"{run.path}: the disk is too small: {disk.words()}; {', or '.join(ways)}")


def require_parallel(config: Config, processes: int) -> None:
    """Check that the config supports the number of processes.

    Raises:
        ConfigError: it does not.
    """
    how, problems = config.execution, []
    if processes == 1:
        return
    if how.device == "mps":
        problems.append(
            "execution.device: mps supports one process; use cpu, or a machine with CUDA"
        )
    if how.parallel == "fsdp" and config.finetune.kind == "classify":
        problems.append("execution.parallel: fsdp does not support classifiers; use ddp")
    if config.train.loss not in BUILT_IN["loss"]:
        problems.append(f"train.loss: the plugin's {config.train.loss} supports only one process")
    if how.parallel == "fsdp":
        for kind, name in (
            ("optimizer", config.optimizer.kind),
            ("model", config.model.architecture),
        ):
            if name not in BUILT_IN[kind]:
                problems.append(f"{KEYS[kind]}: fsdp does not support the plugin's {name}; use ddp")
    if problems:
        raise ConfigError(problems)
