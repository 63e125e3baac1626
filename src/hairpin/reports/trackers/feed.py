"""Feed of one tracker, in the tracker's own thread: the points it was given and those to come.

`tracking.json` in the run's folder holds the run's ID in each tool, and how much the tool has of
it.
"""

import json
import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hairpin.reports.trackers.tracker import UPDATE, Point, Tracked, Tracker, Written
from hairpin.runs import events
from hairpin.system.files import write_atomically

_MAX_IN_CALL = 1000
_FILE = "tracking.json"
_NAMES: dict[str, dict[str, str]] = {
    "update": {
        "loss": "train/loss",
        "lr": "train/lr",
        "grad_norm": "train/grad_norm",
        "tokens_per_second": "train/tokens_per_second",
        "clipped": "train/clipped",
        "skipped": "train/skipped",
        "overflow": "train/overflow",
        "loss_scale": "train/loss_scale",
    },
    "evaluation": {
        "train_loss": "train/evaluated_loss",
        "val_loss": "val/loss",
        "val_bits_per_byte": "val/bits_per_byte",
        "train_accuracy": "train/evaluated_accuracy",
        "val_accuracy": "val/accuracy",
    },
    "checkpoint": {"best": "checkpoint/best"},
}
_INCIDENTS = ("spike", "skip", "rewind")

P = ParamSpec("P")
T = TypeVar("T")


class Kept:
    """The state that a run's folder holds about its trackers; shared by their threads.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._lock = threading.Lock()
        self._tools: dict[str, Any] = {}
        if self._path.exists():
            self._tools = json.loads(self._path.read_text(encoding="utf-8"))

    def identity(self, tool: str) -> str | None:
        """Return the run's ID in the tool; None: it has none yet."""
        found = self._tools.get(tool, {}).get("id")
        return None if found is None else str(found)

    def written(self, tool: str) -> Written | None:
        """Return how much of the run the tool has; None: unknown."""
        found = self._tools.get(tool)
        return Written(int(found["updates"]), int(found["others"])) if found else None

    def put(self, tool: str, identity: str, written: Written) -> None:
        """Store both for a tool."""
        with self._lock:
            self._tools[tool] = {
                "id": identity,
                "updates": written.updates,
                "others": written.others,
            }
            write_atomically(self._path, (json.dumps(self._tools, indent=1) + "\n").encode())


class GivenUpError(Exception):
    """The tracker was given up, so it is no longer waited for."""


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
        for start in range(0, len(points), _MAX_IN_CALL):
            self._write(points[start : start + _MAX_IN_CALL])

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


def point_of(event: Mapping[str, Any], tokens: int) -> Point | None:
    """Convert a line of the record to a point; None: trackers do not get this event.

    Args:
        event: as in metrics.jsonl.
        tokens: number trained on until then.
    """
    kind = event["event"]
    if kind in _NAMES:
        values = {name: _number(event, key) for key, name in _NAMES[kind].items() if key in event}
        return Point(kind, event["update"], tokens, values)
    if kind in _INCIDENTS:  # a rewind is placed where the run continues
        update = event.get("to_update", event["update"])
        return Point(kind, update, tokens, {f"incident/{kind}": 1.0})
    if kind == "ratios":
        values = {f"ratio/{part}": value for part, value in event["ratios"].items()}
        return Point(kind, event["update"], tokens, values)
    if kind == "sample":
        return Point(kind, event["update"], tokens, text=event["prompt"] + event["text"])
    return None


def _number(event: Mapping[str, Any], key: str) -> float:
    """Return a number of the record, which stores a non-finite one as null and a word."""
    value = event[key]
    return float(event["non_finite"] if value is None else value)
