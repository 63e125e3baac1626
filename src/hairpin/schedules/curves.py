"""Learning-rate schedules: pure functions from the index of an update to its learning rate.

Every schedule is a linear warmup followed by a curve. With T updates (0 … T−1) of which W warm up:

    lr(u) = initial + u · (peak − initial) / W      for u < W; initial is peak / W unless given
    lr(W) = peak
    lr(T − 1) = min_lr                              exactly, for the curves that decay

so no update is spent at zero, the peak is reached, and the last update is at the minimum. The lr
depends only on u and the frozen settings: it cannot jump on resume, step twice under accumulation,
or depend on the number of processes.

To add a schedule, write its curve below and name it with `@curve`; the configuration, `hairpin
schedule` and the documentation read the registry.

    >>> lr = cosine(updates=135, warmup=27, peak_lr=1e-2, initial_lr=1e-4, min_lr=1e-5)
    >>> lr(0), lr(27), lr(134)
    (0.0001, 0.01, 1e-05)
"""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hairpin.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """A complete schedule; calling it with an update's index gives the learning rate.

    Args:
        kind: a name in `CURVES`.
        updates: T, the length of the run.
        warmup: W, in updates.
        peak_lr: the learning rate of update W.
        initial_lr: the learning rate of update 0 if W > 0; None: peak_lr / W.
        min_lr: the learning rate of update T − 1, for curves that decay.
        decay: length of the final decay in updates, for `wsd`.
        cycles: number of cosine cycles after warmup, for `cosine-restarts`.

    Raises:
        ConfigError: with a line for every impossible setting.
    """

    kind: str
    updates: int
    warmup: int
    peak_lr: float
    initial_lr: float | None = None
    min_lr: float = 0.0
    decay: int = 0
    cycles: int = 1

    def __post_init__(self) -> None:
        """Reject impossible settings, all at once."""
        problems = _problems(self)
        if problems:
            raise ConfigError(problems)

    def __call__(self, update: int) -> float:
        """Return the learning rate of update `update`, counted from 0.

        Past the end, decayed curves stay at their minimum and the others continue.
        """
        if update < 0:
            raise ValueError(f"updates are counted from 0, not {update}")
        if update < self.warmup:
            initial = self.peak_lr / self.warmup if self.initial_lr is None else self.initial_lr
            return initial + update * (self.peak_lr - initial) / self.warmup
        return CURVES[self.kind].lr(self, update)

    def progress(self, update: int) -> float:
        """Return the progress after warmup: 0 at update W, 1 from update T − 1 on."""
        return min(1.0, (update - self.warmup) / (self.updates - 1 - self.warmup))

    def between(self, height: float) -> float:
        """Return the learning rate at `height`: 1 is exactly the peak, 0 exactly the minimum."""
        # This rounding is monotonic in `height` and never exceeds the bounds.
        above_min = (self.peak_lr - self.min_lr) * height
        return self.peak_lr if height >= 1.0 else min(self.peak_lr, self.min_lr + above_min)

    @property
    def length_independent_updates(self) -> int:
        """The number of leading updates whose learning rate does not depend on the run's length."""
        return CURVES[self.kind].length_independent_updates(self)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Settings that are legal but unusual, a line each."""
        share = self.warmup / self.updates
        if self.warmup == 0:
            return ("no warmup: update 0 is already at the peak; 0.1% to 20% of a run is usual",)
        if not 0.001 <= share <= 0.2:
            return (f"warmup is {share:.2%} of the run; 0.1% to 20% is usual",)
        return ()


class _LearningRate(Protocol):
    def __call__(self, schedule: Schedule, update: int, /) -> float: ...


@dataclass(frozen=True)
class Curve:
    """An entry of the registry.

    Args:
        lr: the learning rate of an update at or after the end of warmup.
        decays: the last update is at `min_lr`.
        shortest: the fewest updates that must follow warmup, given the schedule.
        length_independent_updates: the number of leading updates whose learning rate does not
            depend on the run's length, given the schedule.
    """

    lr: _LearningRate
    decays: bool
    shortest: Callable[[Schedule], int] = field(default=lambda schedule: 1)
    length_independent_updates: Callable[[Schedule], int] = field(
        default=lambda schedule: schedule.warmup + 1
    )


CURVES: dict[str, Curve] = {}


def curve(
    name: str,
    *,
    decays: bool,
    shortest: Callable[[Schedule], int] | None = None,
    length_independent_updates: Callable[[Schedule], int] | None = None,
) -> Callable[[_LearningRate], _LearningRate]:
    """Register the decorated function as the curve `name`; see `Curve` for the arguments."""

    def register(lr: _LearningRate) -> _LearningRate:
        CURVES[name] = Curve(
            lr,
            decays,
            shortest or (lambda _: 2 if decays else 1),
            length_independent_updates or (lambda s: s.warmup + 1 if decays else s.updates),
        )
        return lr

    return register


@curve("constant", decays=False)
def _constant(schedule: Schedule, update: int) -> float:
    return schedule.peak_lr


@curve("linear", decays=True)
def _linear(schedule: Schedule, update: int) -> float:
    return schedule.between(1.0 - schedule.progress(update))


@curve("cosine", decays=True)
def _cosine(schedule: Schedule, update: int) -> float:
    """Decay along half a cosine (Loshchilov and Hutter 2017, without restarts)."""
    return schedule.between(_half_cosine(schedule.progress(update)))


@curve("cosine-restarts", decays=True, shortest=lambda schedule: 2 * schedule.cycles)
def _cosine_restarts(schedule: Schedule, update: int) -> float:
    """Repeat equal cosine cycles, each from the peak exactly down to the minimum (SGDR, 2017)."""
    length = schedule.updates - schedule.warmup
    index = min(update, schedule.updates - 1) - schedule.warmup
    starts = [cycle * length // schedule.cycles for cycle in range(schedule.cycles + 1)]
    cycle = bisect.bisect_right(starts, index) - 1
    first, last = starts[cycle], starts[cycle + 1] - 1
    return schedule.between(_half_cosine((index - first) / (last - first)))


@curve(
    "wsd",
    decays=True,
    shortest=lambda schedule: schedule.decay + 1,
    length_independent_updates=lambda schedule: schedule.updates - schedule.decay,
)
def _wsd(schedule: Schedule, update: int) -> float:
    """Warmup, stable, decay: stay at the peak until a final linear decay (Hu et al. 2024)."""
    to_go = max(0, schedule.updates - 1 - update)
    return schedule.between(min(1.0, to_go / schedule.decay))


@curve("inverse-sqrt", decays=False)
def _inverse_sqrt(schedule: Schedule, update: int) -> float:
    """Decay with the inverse square root of the update (Vaswani et al. 2017, section 5.3)."""
    scale = max(1, schedule.warmup)
    return schedule.peak_lr * math.sqrt(scale / (update - schedule.warmup + scale))


def constant(
    *, updates: int, warmup: int, peak_lr: float, initial_lr: float | None = None
) -> Schedule:
    """Return a schedule with warmup, then the peak to the end."""
    return Schedule("constant", updates, warmup, peak_lr, initial_lr)


def linear(
    *,
    updates: int,
    warmup: int,
    peak_lr: float,
    min_lr: float = 0.0,
    initial_lr: float | None = None,
) -> Schedule:
    """Return a schedule with warmup, then a straight line down to `min_lr`."""
    return Schedule("linear", updates, warmup, peak_lr, initial_lr, min_lr)


def cosine(
    *,
    updates: int,
    warmup: int,
    peak_lr: float,
    min_lr: float = 0.0,
    initial_lr: float | None = None,
) -> Schedule:
    """Return a schedule with warmup, then half a cosine down to `min_lr`."""
    return Schedule("cosine", updates, warmup, peak_lr, initial_lr, min_lr)


def cosine_restarts(
    *,
    updates: int,
    warmup: int,
    peak_lr: float,
    cycles: int,
    min_lr: float = 0.0,
    initial_lr: float | None = None,
) -> Schedule:
    """Return a schedule with warmup, then `cycles` half cosines from the peak to `min_lr`."""
    return Schedule("cosine-restarts", updates, warmup, peak_lr, initial_lr, min_lr, cycles=cycles)


def wsd(
    *,
    updates: int,
    warmup: int,
    decay: int,
    peak_lr: float,
    min_lr: float = 0.0,
    initial_lr: float | None = None,
) -> Schedule:
    """Return a schedule with warmup, the peak, then a linear decay over `decay` updates."""
    return Schedule("wsd", updates, warmup, peak_lr, initial_lr, min_lr, decay=decay)


def inverse_sqrt(
    *, updates: int, warmup: int, peak_lr: float, initial_lr: float | None = None
) -> Schedule:
    """Return a schedule with warmup, then a decay with the inverse square root of the update."""
    return Schedule("inverse-sqrt", updates, warmup, peak_lr, initial_lr)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _problems(schedule: Schedule) -> list[str]:
    """Return a line for each reason why the schedule is impossible."""
    if schedule.kind not in CURVES:
        known = ", ".join(CURVES)
        return [f"schedule.kind: there is no {schedule.kind!r}; choose one of {known}"]
    problems = []
    if schedule.updates < 1:
        problems.append(f"updates: a run has at least 1, not {schedule.updates}")
    if schedule.warmup < 0:
        problems.append(f"warmup: cannot be negative, but is {schedule.warmup} updates")
    if not (math.isfinite(schedule.peak_lr) and schedule.peak_lr > 0):
        problems.append(f"peak_lr: must be above 0 and finite, not {schedule.peak_lr}")
    for name, lr in (("initial_lr", schedule.initial_lr), ("min_lr", schedule.min_lr)):
        if lr is not None and not 0 <= lr <= schedule.peak_lr:
            problems.append(f"{name}: must be from 0 to the peak {schedule.peak_lr}, not {lr}")
    if schedule.kind == "wsd" and schedule.decay < 1:
        problems.append(f"decay: at least 1 update, not {schedule.decay}")
    if schedule.cycles < 1:
        problems.append(f"cycles: at least 1, not {schedule.cycles}")
    return problems or _length_problems(schedule)


def _length_problems(schedule: Schedule) -> list[str]:
    shortest = CURVES[schedule.kind].shortest(schedule)
    if schedule.updates - schedule.warmup >= shortest:
        return []
    return [
        f"{schedule.kind} needs {shortest} update{'s' * (shortest > 1)} or more after warmup, but "
        f"{schedule.updates} updates with {schedule.warmup} of warmup leave "
        f"{schedule.updates - schedule.warmup}: train longer or warm up for less"
    ]
