"""Schedules, optimizers, models and losses of a user's own, under names that a config may use.

A plugin is one Python file that is named on the command line (`--plugin mine.py`); nothing else
ever runs it. It calls any of these when it is imported:

    from hairpin.plugins import register_schedule

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
from hairpin.schedules import CURVES, Schedule, curve

# What hairpin brings of each kind; the names that a plugin adds are in `REGISTERED`.
BUILT_IN = {
    "schedule": tuple(CURVES),
    "optimizer": ("adamw", "muon"),
    "model": ("gpt2", "modern", "qwen3"),
    "loss": ("cross-entropy",),
}
# The setting that takes the names of a kind.
KEYS = {
    "schedule": "schedule.kind",
    "optimizer": "optimizer.kind",
    "model": "model.architecture",
    "loss": "train.loss",
}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Registered:
    """What a plugin brings.

    Args:
        kind: "schedule", "optimizer", "model" or "loss".
        name: what the config calls it.
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
        """File and line, as a message begins with them."""
        return f"{self.file}:{self.line}"


REGISTERED: dict[tuple[str, str], Registered] = {}


def register_schedule(
    name: str,
    lr: Callable[[Schedule, int], float],
    *,
    decays: bool = True,
    settled: Callable[[Schedule], int] | None = None,
) -> None:
    """Let `schedule.kind` be `name`.

    Args:
        name: lower-case letters, digits, - and _.
        lr: (schedule, update) → the learning rate of an update at or after the end of warmup, which
            hairpin does itself. It is a pure function of the two. `schedule.between(h)` is the rate
            at height h between minimum (0) and peak (1); `schedule.progress(update)` goes from 0 at
            the end of warmup to 1 in the last update.
        decays: whether it comes down to `schedule.min_lr`.
        settled: how many updates have a rate that no change of the run's length behind them moves;
            None: those of warmup and the first after it.

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
    """Let `optimizer.kind` be `name`.

    Args:
        name: lower-case letters, digits, - and _.
        make: (groups, settings) → a `torch.optim.Optimizer`. `groups` are parameter groups with
            "params", "weight_decay" and "lr_scale"; `settings` is the config's table `optimizer`.
            hairpin sets each group's "lr" before every step, gives gradients that are clipped, and
            does not call `step` where the guard skips an update. What the optimizer remembers is
            tensors and numbers in its `state` and `param_groups`, so that a checkpoint has it.

    Raises:
        PluginError: the name is taken.
    """
    _register("optimizer", name, make)


def register_model(name: str, make: Callable[..., Any]) -> None:
    """Let `model.architecture` be `name`.

    Args:
        name: lower-case letters, digits, - and _.
        make: shape → a `torch.nn.Module` with float32 parameters and no other state. `shape` has
            vocabulary, context, layers, heads, width, dropout and more, as the config says
            (`hairpin.model.shape`). `forward(inputs, targets)`, int64 [B, T] each with T up to
            the context, gives the summed cross entropy in nats, a scalar, and how many targets are
            not -100, an integer scalar. `logits(inputs)`, [B, T, vocabulary], is wanted for
            samples and for a loss of a plugin's. PyTorch's random stream is seeded before `make`.

    Raises:
        PluginError: the name is taken.
    """
    _register("model", name, make)


def register_loss(name: str, losses: Callable[..., Any]) -> None:
    """Let `train.loss` be `name`: what updates minimise. Evaluations stay cross entropy.

    Args:
        name: lower-case letters, digits, - and _.
        losses: (logits [B, T, vocabulary], targets int64 [B, T]) → a loss for each position,
            [B, T]. Those of positions without a target, which are given target 0, do not count;
            hairpin divides the sum by the number of targets in the whole update.

    Raises:
        PluginError: the name is taken.
    """
    _register("loss", name, losses)


def known(kind: str) -> tuple[str, ...]:
    """Every name of a kind that there is now."""
    return (*BUILT_IN[kind], *(name for its, name in REGISTERED if its == kind))


def registered(kind: str, name: str) -> Registered | None:
    """What a plugin brings under a name; None: it is hairpin's own, or there is none."""
    return REGISTERED.get((kind, name))


def forget(found: Registered) -> None:
    """Take a name back."""
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
