"""Times of a run's parts, taken from its own record.

The record times updates and whole processes; the time that a process spent on neither its start nor
its updates went to evaluations, samples and checkpoints.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hairpin.planning.choose import CLOSING_SECONDS

# A first start may have prepared the text, which is not repeated: at most this much counts.
_MOST_STARTING_SECONDS = 30.0


@dataclass(frozen=True)
class Timing:
    """Seconds of a run's parts.

    Args:
        update: of one.
        starting: from the start of a process to its first update.
        pause: of an evaluation with its sample and checkpoint.
    """

    update: float
    starting: float
    pause: float

    @property
    def around(self) -> float:
        """Seconds of a process outside its updates and evaluations: its start and its end."""
        return self.starting + CLOSING_SECONDS

    def updates_in(self, seconds: float, after: int, every: int) -> int:
        """Return the number of updates that fit in the time, with the evaluations on the way and
        the last; 0 if none.

        Args:
            seconds: without the start and the end of the process.
            after: the run's updates before these.
            every: updates between evaluations.
        """
        updates = math.floor((seconds - self.pause) / self.update)
        while updates > 0:
            cost = updates * self.update + self.pause * _pauses(after, updates, every)
            if cost <= seconds:
                return updates
            updates -= max(1, math.floor((cost - seconds) / (self.update + self.pause)))
        return 0


def timing_of(events: Iterable[Mapping[str, Any]]) -> Timing | None:
    """Read the times from a record; None if no update in it was timed."""
    updates: list[float] = []
    begun = starting = pause = training = 0.0
    pauses = 0
    for event in events:
        kind = event["event"]
        if kind == "start":
            begun = event.get("time", 0.0)
        elif kind == "plan" and begun and "ends" in event:
            starting = max(0.0, event["ends"] - event.get("seconds", 0.0) - begun)
        elif kind == "resume":
            training, pauses = 0.0, 0
        elif kind == "update" and event.get("tokens_per_second"):
            seconds = event["tokens"] / event["tokens_per_second"]
            updates.append(seconds)
            training += seconds
        elif kind == "evaluation":
            pauses += 1
        elif kind == "end" and pauses:
            pause = max(0.0, event["seconds"] - starting - training) / pauses
    if not updates:
        return None
    return Timing(statistics.median(updates), min(starting, _MOST_STARTING_SECONDS), pause)


def _pauses(after: int, updates: int, every: int) -> int:
    """Count the evaluations in this many further updates, including the last."""
    end = after + updates
    return end // every - after // every + (end % every > 0)
