"""Progress of a run in numbers, for the live bar and the lines of a log."""

import math
from collections.abc import Callable

from hairpin.reports.formats import format_duration, format_loss, format_lr, format_norm
from hairpin.runs import events

# The loss of the last update has a weight of 5%: the average covers about 20 updates.
_SMOOTHING = 0.95


class Progress:
    """Progress of the whole run, computed from the updates of this process.

    Args:
        clock: returns seconds since an arbitrary moment.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._loss_sum = self._loss_weight = 0.0
        self.start_time = clock()
        self._update_time = self.start_time
        self._seconds_each = math.nan
        self.update: events.Update | None = None
        self.done = 0  # updates of the whole run
        self.counted = "tok"  # the unit that the tokens of an update are counted in

    def add(self, update: events.Update) -> None:
        """Record an update that has just been made."""
        now = self._clock()
        if self._first is None or update.update < self._first[0]:
            self._first = (update.update, now)
        # Time left is computed from this process alone: an earlier process says nothing about this
        # machine. The time of evaluations and checkpoints between updates is included.
        made = update.update - self._first[0]
        self._seconds_each = (now - self._first[1]) / made if made else math.nan
        if math.isfinite(update.loss) and not update.skipped:
            self._loss_sum = _SMOOTHING * self._loss_sum + (1 - _SMOOTHING) * update.loss
            self._loss_weight = _SMOOTHING * self._loss_weight + (1 - _SMOOTHING)
        self._update_time = now
        self.update = update
        self.done = update.update + 1

    @property
    def elapsed_seconds(self) -> float:
        """The time since the display began."""
        return self._clock() - self.start_time

    def seconds_left(self, updates: int | None) -> float:
        """Return the time until `updates` are done, counting down between updates; NaN: unknown."""
        if self.update is None or updates is None or math.isnan(self._seconds_each):
            return math.nan
        to_go = max(0, updates - self.done)
        since_seconds = self._clock() - self._update_time
        return max(0.0, to_go * self._seconds_each - since_seconds)

    def figures(self) -> list[str]:
        """Return the smoothed loss, lr, gradient norm and speed as texts."""
        if self.update is None:
            return []
        loss = self.update.loss
        if math.isfinite(loss) and self._loss_weight:  # none counted yet, if all were skipped
            loss = self._loss_sum / self._loss_weight
        clipped = " (clipped)" if self.update.clipped else ""
        return [
            f"loss {format_loss(loss)}",
            f"lr {format_lr(self.update.lr)}",
            f"grad {format_norm(self.update.grad_norm)}{clipped}",
            f"{self.update.tokens_per_second:,.0f} {self.counted}/s",
        ]

    def position(self, updates: int | None) -> str:
        """Describe how many updates are done, and of how many."""
        return f"update {self.done:,}" + ("" if updates is None else f"/{updates:,}")

    def line(self, updates: int | None) -> str:
        """Describe the progress in one line, for a log."""
        left = self.seconds_left(updates)
        time_left = [f"{format_duration(left)} left"] if math.isfinite(left) else []
        return "  ".join([self.position(updates), *self.figures(), *time_left])
