"""Reading a checkpoint of a run that may be training at the same time.

Training replaces the best weights and deletes old checkpoints at any moment. A read returns one
consistent checkpoint, every byte verified by its hash, or is repeated; a checkpoint that stays
unchanged and is damaged or cannot be read is an error.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hairpin.checkpoints.manifest import Checkpoint, described_checkpoint
from hairpin.errors import CheckpointError, UnreadableError
from hairpin.system.access import reading

T = TypeVar("T")
_PAUSE_SECONDS = 0.002
_MAX_GONE = 100

# The identity of a folder: its path, device, inode and change time, and its manifest's hash.
_Seen = tuple[Path, tuple[int, int, int], str | None]


def read_live(find: Callable[[], Path | None], use: Callable[[Checkpoint], T]) -> T | None:
    """Use the checkpoint that is there; None: there is none.

    Args:
        find: returns its folder, which may differ from call to call.
        use: reads it completely, by its verified methods.

    Raises:
        CheckpointError: it is damaged.
        UnreadableError: it cannot be read now.
        RunError: it was written by another version of hairpin.
    """
    gone = 0
    while (path := find()) is not None:
        before = _folder_identity(path)
        try:
            return use(described_checkpoint(path))
        except (CheckpointError, UnreadableError):
            again = find()
            after = _folder_identity(again) if again else None
            # A folder that was deleted meanwhile says nothing about the next one.
            gone = gone + 1 if before is None else 0
            if (before is not None and after == before) or gone > _MAX_GONE:
                raise
        time.sleep(_PAUSE_SECONDS)
    return None


def _folder_identity(path: Path) -> _Seen | None:
    """Return the identity of a folder; None: it was deleted."""
    try:
        with reading(path):
            facts = path.stat()
    except FileNotFoundError:
        return None
    try:
        digest = described_checkpoint(path).manifest.get("sha256")
    except (CheckpointError, UnreadableError):
        digest = None
    return path, (facts.st_dev, facts.st_ino, facts.st_ctime_ns), digest
