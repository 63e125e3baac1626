"""Beginning at update 0, for a run that has no checkpoint to go on from.

A run that is killed before its first checkpoint has saved nothing, and begins again by itself. Of
one that has saved something and finds it no more (a folder that is not mounted, a disk that was
wiped), nobody but its owner can say that it is lost.
"""

from collections.abc import Sequence

from hairpin.checkpoints.best import best_folder
from hairpin.commands import command
from hairpin.errors import RunError
from hairpin.reading import is_there
from hairpin.runs.directory import RunDirectory
from hairpin.runs.metrics import read_record

# The line about a checkpoint is written before it is saved, and before that it is known whether
# the one before was. So so many lines may be about checkpoints of which none was committed.
_MOST_UNCOMMITTED = 2


def require_nothing_lost(run: RunDirectory, damaged: Sequence[str]) -> int:
    """Check that no checkpoint of the run was ever committed; returns how many updates its record
    has, which are made again.

    Args:
        run: it has no checkpoint that is whole.
        damaged: what is wrong with those that it has.

    Raises:
        RunError: there was one. Nothing was changed.
        UnreadableError: that cannot be told now.
    """
    saved = updates = 0
    for event in read_record(run.metrics):
        saved += event["event"] == "checkpoint"
        updates += event["event"] == "update"
    if damaged:
        what = f"none of its {len(damaged)} checkpoints is whole ({damaged[0]})"
    elif saved > _MOST_UNCOMMITTED or is_there(run.witness) or best_folder(run.best):
        what = f"its checkpoints are gone: there is none in {run.checkpoints}"
    else:
        return updates
    raise RunError(
        f"{run.path}: {what}, and its record has {updates:,} updates; nothing was changed: put "
        f"them back, or mount their disk, or begin again at update 0 with "
        f"`{command('resume', run.path, '--restart')}`"
    )
