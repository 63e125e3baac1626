"""Wall time that a run may take, and the one correction that meets it.

The number of updates is first set from a probe, then corrected once, from the speed that training
itself has shown, while no learning rate given so far depends on it: during warmup.
"""

import statistics
import time
from dataclasses import dataclass

# What is kept back for the unforeseen, as a share of the time that is left.
_MARGIN = 0.04
CLOSING_SECONDS = 4.0  # the last checkpoint, the summary and the plots


@dataclass(frozen=True)
class Budget:
    """Wall time that a run may take.

    Args:
        seconds: from `started` to the end of the process.
        started: when it began, on `time.monotonic`.
    """

    seconds: float
    started: float

    @property
    def left(self) -> float:
        """Seconds that remain."""
        return self.started + self.seconds - time.monotonic()


class Pace:
    """Corrects a run's length once, so that it meets its budget.

    Args:
        budget: the time.
        correct_at: after how many updates; no earlier learning rate may depend on the length.
        milestones: how many evaluations with sample and checkpoint are to come after that.
    """

    def __init__(self, budget: Budget, correct_at: int, milestones: int) -> None:
        self.correct_at = correct_at
        self._budget = budget
        self._milestones = milestones
        self._milestone_seconds = 0.0
        self._update_seconds: list[float] = []

    def took(self, seconds: float) -> None:
        """An update was read this long after the one before."""
        self._update_seconds.append(seconds)

    def paused(self, seconds: float) -> None:
        """An evaluation or a sample took this long: the first ones stand for those to come."""
        self._milestone_seconds += seconds

    def updates_that_fit(self, done: int) -> int:
        """The length at which the run ends in time; at least two updates more than are `done`."""
        overhead = CLOSING_SECONDS + self._milestones * self._milestone_seconds
        left = (self._budget.left - overhead) * (1 - _MARGIN)
        # The mean, because pauses of the machine are part of its speed; not the first update,
        # which also warms caches.
        per_update = statistics.fmean(self._update_seconds[1:] or self._update_seconds)
        return max(done + 2, done + int(left / per_update))
