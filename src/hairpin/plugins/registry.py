"""Users' own schedules, optimizers, models and losses, under names that a config may use.

A plugin is one Python file that is named on the command line (`--plugin mine.py`); nothing else
ever runs it. On import it calls any of these:

    from hairpin.plugins.registry import register_schedule

    def quadratic(schedule, update):
        return schedule.between((1 - schedule.progress(update)) ** 2)

    register_schedule("quadratic", quadratic)      # schedule.kind = "quadratic"

docs/plugins.md has the contract of each, examples/plugins/ an example.
"""

import inspect
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hairpin.errors import PluginError
from hairpin.model.architectures import ARCHITECTURES
from hairpin.schedules.curves import CURVES, Schedule, curve

# Built-in names of each kind; those that a plugin adds are in `REGISTERED`.
BUILT_IN = {
    "schedule": tuple(CURVES),
    "optimizer": ("adamw", "muon"),
    "model": tuple(ARCHITECTURES),
    "loss": ("cross-entropy",),
}
# The setting that takes the names of each kind.
KEYS = {
    "schedule": "schedule.kind",
    "optimizer": "optimizer.kind",
    "model": "model.architecture",
    "loss": "train.loss",
}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Registered:
    """A component registered by a plugin.

    Args:
        kind: "schedule", "optimizer", "model" or "loss".
        name: its name in the config.
        make: the function or class.
        file, line: where it is defined.
    """

    kind: str
    name: str
    make: Callable[..., Any]
    file: str
    line: int

    @property
    def place(self) -> str:
        """File and line, in the form that begins a message."""
        return f"{self.file}:{self.line}"


REGISTERED: dict[tuple[str, str], Registered] = {}


def register_schedule(
    name: str,
    lr: Callable[[Schedule, int], float],
    *,
    decays: bool = True,
    settled: Callable[[Schedule], int] | None = None,
) -> None:
    """Register `name` as a value of `schedule.kind`.

    Args:
        name: lower-case letters, digits, - and _.
        lr: (schedule, update) → the learning rate of an update at or after the end of warmup, which
            hairpin does itself. A pure function of the two. `schedule.between(h)` is the rate at
            height h between minimum (0) and peak (1); `schedule.progress(update)` goes from 0 at
            the end of warmup to 1 in the last update.
        decays: it ends at `schedule.min_lr`.
        settled: returns the number of leading updates whose rate does not depend on the run's
            length; None: those of warmup and the first after it.

    Raises:
        PluginError: the name is taken. Training with it: a rate is not finite, or below 0.
    """
    found = _register("schedule", name, lr)

    def checked(schedule: Schedule, update: int) -> float:
        rate = lr(schedule, update)
        if not (isinstance(rate, int | float) and math.isfinite(rate) and rate >= 0):
            raise PluginError(
                f"{found.place}: the schedule {name!r} gives {rate!r} as the learning rate of "
                f"update {update}; a rate is a finite number from 0 on"
            )
        return float(rate)

    settles = settled or (lambda schedule: schedule.warmup + 1)
    curve(name, decays=decays, settled=settles)(checked)


def register_optimizer(name: str, make: Callable[..., Any]) -> None:
    """Register `name` as a value of `optimizer.kind`.

    Args:
        name: lower-case letters, digits, - and _.
        make: (groups, settings) → a `torch.optim.Optimizer`. `groups` are parameter groups with
            "params", "weight_decay" and "lr_scale"; `settings` is the config's table `optimizer`.
            hairpin sets each group's "lr" before every step, passes clipped gradients, and does not
            call `step` if the guard skips an update. The optimizer keeps its state as tensors and
            numbers in `state` and `param_groups`, so that checkpoints include it.

    Raises:
        PluginError: the name is taken.
    """
    _register("optimizer", name, make)


def register_model(name: str, make: Callable[..., Any]) -> None:
    """Register `name` as a value of `model.architecture`.

    Args:
        name: lower-case letters, digits, - and _.
        make: shape → a `torch.nn.Module` with float32 parameters and no other state. `shape` has
            vocabulary, context, layers, heads, width, dropout and more, as in the config
            (`hairpin.model.shape`). `forward(inputs, targets)`, int64 [B, T] each with T up to the
            context, returns the summed cross entropy in nats, a scalar, and the number of targets
            that are not -100, an integer scalar. `logits(inputs)`, [B, T, vocabulary], is needed
            for samples and for a plugin's loss. PyTorch's random generator is seeded before `make`.

    Raises:
        PluginError: the name is taken.
    """
    _register("model", name, make)


def register_loss(name: str, losses: Callable[..., Any]) -> None:
    """Register `name` as a value of `train.loss`, to be minimised. Evaluations stay cross entropy.

    Args:
        name: lower-case letters, digits, - and _.
        losses: (logits [B, T, vocabulary], targets int64 [B, T]) → a loss for each position, [B,
            T]. Positions without a target get target 0, and their losses do not count; hairpin
            divides the sum by the number of targets in the whole update.

    Raises:
        PluginError: the name is taken.
    """
    _register("loss", name, losses)


def known(kind: str) -> tuple[str, ...]:
    """Return all current names of a kind."""
    return (*BUILT_IN[kind], *(name for its, name in REGISTERED if its == kind))


def registered(kind: str, name: str) -> Registered | None:
    """Return the component that a plugin registered under a name; None: there is none."""
    return REGISTERED.get((kind, name))


def forget(found: Registered) -> None:
    """Unregister a name."""
    REGISTERED.pop((found.kind, found.name), None)
    if found.kind == "schedule":
        CURVES.pop(found.name, None)


def _register(kind: str, name: str, make: Callable[..., Any]) -> Registered:
    caller = sys._getframe(2)
    here = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(
            f"{here}: {name!r} is no name for a {kind}: lower-case letters, digits, - and _, a "
            "letter first"
        )
    if not callable(make):
        raise PluginError(f"{here}: the {kind} {name!r} is no function or class, but {make!r}")
    if name in known(kind):
        raise PluginError(f"{here}: the {kind} {name!r} is there already; choose another name")
    code = getattr(inspect.unwrap(make), "__code__", None)
    file, line = caller.f_code.co_filename, caller.f_lineno
    if code is not None and code.co_filename == file:
        line = code.co_firstlineno
    found = Registered(kind, name, make, file, line)
    REGISTERED[kind, name] = found
    return found
