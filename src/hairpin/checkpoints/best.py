"""Lookup of the folder of the best weights, which may be replaced while it is being read."""

from pathlib import Path

from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.errors import CheckpointError
from hairpin.system.access import is_there

_TRIES = 10


def best_folder(best: Path) -> Path | None:
    """Return the folder of the best model, or of the previous one while it is being replaced.

    None: there is none. Callers must not check again that it exists: it may have been replaced
    since, which does not mean that there is no best model.
    """
    for _ in range(_TRIES):  # it may be replaced again between the two checks
        for place in (best, old_best(best)):
            if is_there(place):
                return place
    return None


def best_step(best: Path) -> int | None:
    """Return the update after which the best model was saved; None: it is missing or damaged.

    Raises:
        UnreadableError: the folder cannot be read now.
    """
    try:
        return open_checkpoint(best).step
    except CheckpointError:
        return None


def best_problem(best: Path, step: int) -> str | None:
    """Return a line if the best model cannot belong to a run of `step` updates; None: it can.

    Raises:
        UnreadableError: the folder cannot be read now.
    """
    if not is_there(best):
        return None
    found = best_step(best)
    if found is None:
        return "damaged"
    return f"from update {found}, later than {step}" if found > step else None


def old_best(best: Path) -> Path:
    """Return the folder of the previous best model while it is being replaced."""
    return best.with_name(f".old-{best.name}")
