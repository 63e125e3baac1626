"""Wall time that a run may take, and the one correction that meets it.

The number of updates is first set from a probe. It is corrected once, from the measured speed of
training, as late as the schedule allows: no learning rate used so far may depend on it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from hairpin.config.settings import Config

# Reserve for the unforeseen, as a share of the time left.
_MARGIN = 0.04
# The correction comes after this share of the budget, or of the updates unaffected by it.
_CORRECTION_SHARE = 0.35
_FREE_SHARE = 0.8


@dataclass(frozen=True)
class Budget:
    """Wall time that a run may take.

    Args:
        seconds: from `started` to the end of the process.
        started: start time, on `time.monotonic`.
    """

    seconds: float
    started: float

    @property
    def left(self) -> float:
        """Return the seconds that remain."""
        return self.started + self.seconds - time.monotonic()


class Pace:
    """Correction, made once, of a run's length to meet its budget.

    Args:
        budget: the time.
        free_updates: updates whose learning rate does not depend on the run's length.
        milestones: evaluations with sample and checkpoint in the whole run, after the first.
        closing_seconds: time that the end of the run takes.
        config_for: number of updates → the config for that length.
    """

    def __init__(
        self,
        budget: Budget,
        free_updates: int,
        milestones: int,
        closing_seconds: float,
        config_for: Callable[[int], Config],
    ) -> None:
        self.config_for = config_for
        self._budget = budget
        self._latest = max(1, int(_FREE_SHARE * free_updates))
        self._milestones = milestones
        self._closing_seconds = closing_seconds
        self._updates = 0
        self._update_seconds = 0.0
        self._pauses = 0
        self._pause_seconds = 0.0

    def took(self, seconds: float) -> None:
        """Count an update that took this long."""
        self._updates += 1
        self._update_seconds += seconds

    def paused(self, seconds: float, *, milestones: int) -> None:
        """Count a pause for this many milestones; 0: for a checkpoint of one of them."""
        self._pauses += milestones
        self._pause_seconds += seconds

    def correction_due(self, done: int) -> bool:
        """Return True if the length should be corrected after `done` updates."""
        used = 1 - self._budget.left / self._budget.seconds
        return done >= self._latest or (done > 0 and used >= _CORRECTION_SHARE)

    def updates_that_fit(self, done: int) -> int:
        """Return the length that ends in time; at least two updates more than are `done`."""
        milestone = self._pause_seconds / max(1, self._pauses)
        to_come = max(1, self._milestones + 1 - self._pauses)
        left = (self._budget.left - self._closing_seconds - milestone * to_come) * (1 - _MARGIN)
        return max(done + 2, done + int(left * self._updates / self._update_seconds))
