"""Feed of one tracker, in the tracker's own thread: the points it was given and those to come."""

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from hairpin.reports.trackers.kept import Kept
from hairpin.reports.trackers.points import UPDATE, Point, point_of
from hairpin.reports.trackers.tracker import Tracked, Tracker, Written
from hairpin.runs import events

_MOST_IN_CALL = 1000

P = ParamSpec("P")
T = TypeVar("T")


class GivenUpError(Exception):
    """The tracker was given up, so nobody waits for it any more."""


@dataclass(frozen=True)
class Opening:
    """The beginning of a process of the run.

    Args:
        run: facts about the run for the tracker.
        history: the lines that are in its record already.
        may_rewind: the run may go back to a checkpoint.
    """

    run: Tracked
    history: Sequence[Mapping[str, Any]]
    may_rewind: bool


class Feed:
    """Give a tracker the content of the record, and nothing twice.

    Args:
        tool, make, kept, summary: as in `Follower`.
        given_up: called before each call of the tracker.
    """

    def __init__(
        self,
        tool: str,
        make: Callable[[], Tracker],
        kept: Kept,
        summary: Callable[[], Mapping[str, float]],
        given_up: Callable[[], bool],
    ) -> None:
        self.busy_since: float | None = None  # start time of the call in progress
        self._tool = tool
        self._make = make
        self._kept = kept
        self._summary = summary
        self._given_up = given_up
        self._tokens = array("q")  # trained on by the end of each update
        self._points: list[Point] = []  # still to be given
        self._safe = 0  # how many of them no rewind can discard
        self._recent: list[Point] = []  # since the last checkpoint, without updates

    def take(self, batch: Sequence[Opening | events.Event]) -> bool:
        """Give the tracker a batch; return True if it was the last."""
        for what in batch:
            if isinstance(what, Opening):
                self._open(what)
            elif isinstance(what, events.Rewind):
                self._rewind(what)
            else:
                self._add(what.as_json())
        end = batch[-1] if isinstance(batch[-1], events.End) else None
        if end and end.status == "finished":
            self._safe = len(self._points)
        self._tell()
        if end:
            self._call(self._tracker.close, end.status, self._summary())
        return end is not None

    def _open(self, opening: Opening) -> None:
        self._tracker = self._call(self._make)
        self._identity, self._written = self._call(self._tracker.open, opening.run)
        self._kept.put(self._tool, self._identity, self._written)
        self._from = self._written
        self._holds = opening.may_rewind and not self._tracker.can_rewind
        for event in opening.history:
            self._add(event)
        self._safe = len(self._points)  # lines kept in the record are not discarded any more

    def _add(self, event: Mapping[str, Any]) -> None:
        """Handle a line of the record."""
        if event["event"] == UPDATE:
            del self._tokens[event["update"] :]
            self._tokens.append(self._trained + event["tokens"])
        point = point_of(event, self._trained)
        if point is None:
            return
        start = self._from.updates if point.kind == UPDATE else self._from.others
        if point.update >= start:
            self._points.append(point)
        if point.kind == "checkpoint":
            self._safe = len(self._points)
            self._recent = [other for other in self._recent if other.update == point.update]
        if point.kind != UPDATE:
            self._recent.append(point)

    @property
    def _trained(self) -> int:
        return self._tokens[-1] if self._tokens else 0

    def _rewind(self, event: events.Rewind) -> None:
        """Cut back what the tracker has, or was to get, as the record was."""
        to = event.to_update
        if self._tracker.can_rewind:
            self._tell()
            self._call(self._tracker.rewind, to)
            self._written = self._from = Written(to, to)
            self._points = [point for point in self._recent if point.update == to]
        else:
            self._points = [p for p in self._points if p.update < to + (p.kind != UPDATE)]
        del self._tokens[to:]
        self._recent = [point for point in self._recent if point.update == to]
        self._add(event.as_json())
        self._safe = len(self._points)

    def _tell(self) -> None:
        """Give the tracker its points; if it holds some back, only those that no rewind
        discards.
        """
        count = self._safe if self._holds else len(self._points)
        points, self._points = self._points[:count], self._points[count:]
        self._safe = 0
        for start in range(0, len(points), _MOST_IN_CALL):
            self._write(points[start : start + _MOST_IN_CALL])

    def _write(self, points: Sequence[Point]) -> None:
        updates = [point.update + 1 for point in points if point.kind == UPDATE]
        others = [point.update + 1 for point in points if point.kind != UPDATE]
        was = self._written
        self._written = Written(max([was.updates, *updates]), max([was.others, *others]))
        if self._tracker.can_rewind:  # it purges duplicates
            self._call(self._tracker.write, points)
            self._kept.put(self._tool, self._identity, self._written)
        else:  # a kill between the two loses points rather than duplicating them
            self._kept.put(self._tool, self._identity, self._written)
            self._call(self._tracker.write, points)

    def _call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call the tracker, which may never return."""
        if self._given_up():
            raise GivenUpError
        self.busy_since = time.monotonic()
        try:
            return function(*arguments, **named)
        finally:
            self.busy_since = None
