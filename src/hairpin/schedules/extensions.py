"""Schedule of a run that was extended: the original schedule, and the parts after its end.

An extension begins with an update `at` and lasts until the next one begins, or the run ends. With n
updates in it, and `before` the learning rate of update at − 1, its policy determines their rates:

    rewarm     A line from `before` back to the peak over the first 5% (W = 5% of n, at least 1, so
               that update at + W is at the peak), then the run's own curve over the rest, so that
               the last update is at the minimum. Curves that do not decay are replaced by a cosine.
               For a finished run that is to learn much more (Ibrahim et al. 2024).
    constant   `before`, for all of them.
    cooldown   A line from `before` to zero: the last update is at 0, whatever the run's minimum is.
               It removes the noise of a rate above zero, which lowers the loss (Hägele et al.
               2024); after it, only rewarming makes the model learn.

A line begins at update at − 1, which had `before`, so that update at is one step along it: the
learning rate does not jump, and is not zero where a part begins.

    >>> from hairpin.schedules.curves import linear
    >>> lr = extended(linear(updates=5, warmup=0, peak_lr=8.0, min_lr=4.0), [(5, "cooldown")], 9)
    >>> [lr(update) for update in range(9)]
    [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from hairpin.errors import ConfigError
from hairpin.schedules.curves import CURVES, Schedule

POLICIES = {
    "rewarm": "back up to the peak, then down its curve again",
    "constant": "the last learning rate continues",
    "cooldown": "from the last learning rate straight down to zero",
}
REWARM_FRACTION = 0.05
_MIN_COOLDOWN_LENGTH = 2  # a single update would have a rate of zero


@dataclass(frozen=True)
class ExtensionPart:
    """The updates of one extension.

    Args:
        policy: a name in `POLICIES`.
        at: the first update.
        updates: their number.
        before: the learning rate of update at − 1.
        curve: the schedule of a rewarm, with updates counted from `at`.
    """

    policy: str
    at: int
    updates: int
    before: float
    curve: Schedule | None = None

    def __call__(self, update: int) -> float:
        """Return the learning rate of the run's update `update`, which is `at` or a later one."""
        if self.curve:
            return self.curve(update - self.at)
        if self.policy == "constant":
            return self.before
        to_go = max(0, self.at + self.updates - 1 - update)
        return self.before * (to_go / self.updates)


@dataclass(frozen=True, kw_only=True)
class Extended(Schedule):
    """A schedule with extensions, made by `extended`.

    `updates` is the length of the whole; all other settings are the base's.

    Args:
        base: the schedule up to the first extension.
        parts: the extensions, in order.
    """

    base: Schedule
    parts: tuple[ExtensionPart, ...]

    def __call__(self, update: int) -> float:
        """Return the learning rate of update `update`, counted from 0."""
        part = next((part for part in reversed(self.parts) if part.at <= update), self.base)
        return part(update)

    @property
    def length_independent_updates(self) -> int:
        """The number of leading updates whose learning rate does not depend on the run's length."""
        last = self.parts[-1]
        return self.updates if last.policy == "constant" else last.at

    @property
    def warnings(self) -> tuple[str, ...]:
        """The base's warnings."""
        return self.base.warnings


def extended(base: Schedule, extensions: Sequence[tuple[int, str]], updates: int) -> Schedule:
    """Build the schedule of a base and its extensions; without extensions the base itself.

    Args:
        base: as long as the run was before the first extension; its `min_lr` is where a rewarmed
            curve ends, even if the base's own curve does not decay.
        extensions: (at, policy) of each, in order.
        updates: the length of the whole.

    Raises:
        ConfigError: an extension is impossible.
    """
    if not extensions:
        return base
    bounds = [*(at for at, _ in extensions), updates]
    if any(end <= at for at, end in pairwise(bounds)):
        written = ", ".join(f"{bound:,}" for bound in bounds)
        raise ConfigError(
            "schedule.extensions: each must begin after the one before it, and the last before "
            f"train.updates; these are {written}"
        )
    if bounds[0] != base.updates:
        raise ValueError(f"the base has {base.updates} updates and is extended at {bounds[0]}")
    parts: list[ExtensionPart] = []
    for (at, policy), end in zip(extensions, bounds[1:], strict=True):
        before = (parts[-1] if parts else base)(at - 1)
        parts.append(_part(base, policy, at, end - at, before))
    whole = {field.name: getattr(base, field.name) for field in fields(Schedule)}
    return Extended(**{**whole, "updates": updates}, base=base, parts=tuple(parts))


def _part(base: Schedule, policy: str, at: int, updates: int, before: float) -> ExtensionPart:
    where = f"schedule.extensions: {policy} at update {at:,}"
    if policy not in POLICIES:
        raise ConfigError(f"{where}: there is no such policy; choose one of {', '.join(POLICIES)}")
    if policy != "rewarm" and before == 0:
        raise ConfigError(
            f"{where}: the learning rate is 0 by then and would stay 0; only rewarm raises it"
        )
    if policy == "cooldown" and updates < _MIN_COOLDOWN_LENGTH:
        raise ConfigError(f"{where}: needs {_MIN_COOLDOWN_LENGTH} updates or more, not {updates}")
    curve = _rewarmed(base, where, updates, before) if policy == "rewarm" else None
    return ExtensionPart(policy, at, updates, before, curve)


def _rewarmed(base: Schedule, where: str, updates: int, before: float) -> Schedule:
    warmup = max(1, round(REWARM_FRACTION * updates))
    step = (base.peak_lr - before) / (warmup + 1)
    share = base.decay / base.updates  # for `wsd`, whose decay takes the same share again
    try:
        return replace(
            base,
            kind=base.kind if CURVES[base.kind].decays else "cosine",
            updates=updates,
            warmup=warmup,
            initial_lr=min(base.peak_lr, before + step),
            decay=max(1, min(round(share * updates), updates - warmup - 1)),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {problem}" for problem in error.problems) from None
