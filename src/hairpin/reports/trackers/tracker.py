"""The interface of trackers: the facts and the points that they get, and the calls that they take.

    class Printer(Tracker):
        def open(self, run):
            return run.identity or run.name, run.written or Written()

        def write(self, points):
            for point in points:
                print(point.update, point.values)

docs/trackers.md has an example that keeps them.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hairpin.config.settings import Track

UPDATE = "update"


@dataclass(frozen=True)
class Point:
    """An event of the record in the form that trackers take.

    Args:
        kind: the event's name.
        update: position as in the record: an update's index from 0, otherwise the number of updates
            completed.
        tokens: number trained on until then.
        values: name → number, such as "train/loss".
        text: generated text.
    """

    kind: str
    update: int
    tokens: int
    values: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True)
class Written:
    """The amount of a run that a tool has: all updates below `updates`, and all other points below
    `others` (both counted as in `Point.update`).
    """

    updates: int = 0
    others: int = 0


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker follows.

    Args:
        path: its folder.
        asked: the settings of trackers.
        name: the run's name in the tool.
        config: dotted key → plain value, all settings.
        kept: number of updates in the record; later ones that the tool may have are discarded.
        written: how much of it the tool has, by hairpin's notes; None: nothing.
        identity: the ID that the tracker returned when it first opened the run; None: it has not
            yet.
        notice: called with a line that says what people have to do with what the tool keeps.
    """

    path: Path
    asked: Track
    name: str
    config: Mapping[str, Any]
    kept: int
    written: Written | None
    identity: str | None
    notice: Callable[[str], None] = lambda line: None


@runtime_checkable
class Tracker(Protocol):
    """One tool, following one run. All calls come from one thread, one after the other; any of them
    may raise, or never return: then the run continues without it.

    A tracker that inherits from this class needs only `open` and `write`.
    """

    # True if the tool can discard points that it was given. To one that cannot, updates that the
    # guard may rewind are given only when a checkpoint keeps them.
    can_rewind: bool = False

    @abstractmethod
    def open(self, run: Tracked) -> tuple[str, Written]:
        """Begin the run in the tool, or resume it; return its ID there, and how much the tool has.

        Points below that are not given again.
        """
        ...

    @abstractmethod
    def write(self, points: Sequence[Point]) -> None:
        """Take the next points; once this returns, a killed process loses none of them."""
        ...

    def rewind(self, update: int) -> None:
        """Discard everything from `update` on; called only if `can_rewind`."""
        raise AssertionError(f"{type(self).__name__} cannot discard points")

    def close(self, status: str, summary: Mapping[str, float]) -> None:
        """Handle the end of the process: "finished", "interrupted" or "failed". A resumed run is
        opened again.
        """
        return
