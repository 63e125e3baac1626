"""The folder of the best weights, as whoever reads it finds it: it may be replaced meanwhile."""

from pathlib import Path

from hairpin.checkpoints.manifest import open_checkpoint
from hairpin.errors import CheckpointError
from hairpin.reading import is_there

_LOOKS = 10


def best_folder(best: Path) -> Path | None:
    """Return the folder of the best model, or of the one before while it is being replaced.

    None: there is none. Callers must not look again whether it is there: it may have been replaced
    since, and that does not mean that there is no best model.
    """
    for _ in range(_LOOKS):  # it may be replaced again between two looks
        for place in (best, old_best(best)):
            if is_there(place):
                return place
    return None


def best_step(best: Path) -> int | None:
    """After how many updates the best model was the best; None: there is none, or it is damaged.

    Raises:
        UnreadableError: that cannot be told now.
    """
    try:
        return open_checkpoint(best).step
    except CheckpointError:
        return None


def problem_with_best(best: Path, step: int) -> str | None:
    """Return a line if the best cannot be that of a run of so many updates; None: it can.

    Raises:
        UnreadableError: that cannot be told now.
    """
    if not is_there(best):
        return None
    found = best_step(best)
    if found is None:
        return "damaged"
    return f"of update {found}, later than {step}" if found > step else None


def old_best(best: Path) -> Path:
    """The best before, while it is being replaced."""
    return best.with_name(f".old-{best.name}")
