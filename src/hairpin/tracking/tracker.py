"""What a tracker is to hairpin, and what it is told of a run when it begins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hairpin.config.track import Track
from hairpin.tracking.points import Point


@dataclass(frozen=True)
class Written:
    """How far a tool has a run: all updates below `updates`, and all other points below `others`
    (both as `Point.update` counts).
    """

    updates: int = 0
    others: int = 0


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker is to follow.

    Args:
        path: its folder.
        asked: the settings of trackers.
        name: what the tool is to call it.
        config: dotted key → plain value, all settings.
        kept: updates that the record has; later ones that the tool may have are set aside.
        written: how far the tool has it, by what hairpin kept; None: the tool knows nothing of it.
        identity: what the tracker gave when it opened the run first; None: it did not yet.
        notice: is told, in a line, what people have to do with what the tool keeps.
    """

    path: Path
    asked: Track
    name: str
    config: Mapping[str, Any]
    kept: int
    written: Written | None
    identity: str | None
    notice: Callable[[str], None] = lambda line: None


class Tracker(Protocol):
    """One tool, following one run. All calls come from one thread, one after the other; any of
    them may raise, or never return: then the run goes on without it.
    """

    # Whether the tool can take back what it was told.
    can_rewind: bool

    def open(self, run: Tracked) -> tuple[str, Written]:
        """Begin the run in the tool, or go on with it; its identity there, and how far it has it.
        Points below that will not be told again.
        """
        ...

    def write(self, points: Sequence[Point]) -> None:
        """Take the next points; when it returns, a killed process loses none of them."""
        ...

    def rewind(self, update: int) -> None:
        """Forget all from `update` on; asked only where `can_rewind`."""
        ...

    def close(self, status: str, summary: Mapping[str, float]) -> None:
        """The process ends: "finished", "interrupted" or "failed". A run that is resumed is opened
        again.
        """
        ...
