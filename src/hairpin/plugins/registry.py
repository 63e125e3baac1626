"""Everything that a setting can name: hairpin's own optimizers and trackers, and what users' own
plugins register.

`OPTIMIZERS` and `TRACKERS` have an entry for each that is built in; its code is in a file of its
own, which is imported when it is used. Curves register themselves in `hairpin.schedules`.

A plugin is one Python file that is named on the command line (`--plugin mine.py`); nothing else
ever runs it. On import it calls any of these:

    from hairpin.plugins.registry import register_schedule

    def quadratic(schedule, update):
        return schedule.between((1 - schedule.progress(update)) ** 2)

    register_schedule("quadratic", quadratic)      # schedule.kind = "quadratic"

docs/plugins.md has the contract of each, examples/plugins/ an example.
"""

import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hairpin.errors import PluginError
from hairpin.model.architectures import ARCHITECTURES
from hairpin.schedules.curves import CURVES, Schedule, curve


def _lazy(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports the module when it is called, and calls `name` in it."""

    def call(*arguments: Any, **named: Any) -> Any:
        return getattr(import_module(module), name)(*arguments, **named)

    return call


@dataclass(frozen=True)
class OptimizerKind:
    """A built-in optimizer.

    Args:
        build: (model, settings, *, shards, precision) → a `torch.optim.Optimizer` over all
            trainable parameters; the arguments are those of `optim.optimizers.build_optimizer`.
        words: its description in docs/config.md.
        settings: the keys of the table `optimizer` that it reads, without `kind`.
        moments: float32 numbers that it keeps for each parameter, in memory and in checkpoints.
        block_moments: the same for the matrices of blocks; None: as many.
        peak_lr: the peak learning rate where none is set; None: AdamW's, which depends on width.
        stacks_matrices: a step needs stacks of the blocks' matrices, as Muon's products do.
    """

    build: Callable[..., Any]
    words: str
    settings: tuple[str, ...]
    moments: int
    block_moments: int | None = None
    peak_lr: float | None = None
    stacks_matrices: bool = False


_LR_SCALES = ("embedding_lr_scale", "head_lr_scale")
_ADAMW = ("beta1", "beta2", "epsilon", "weight_decay", *_LR_SCALES)
OPTIMIZERS = {
    "adamw": OptimizerKind(
        _lazy("hairpin.optim.adamw", "build"),
        "AdamW (Loshchilov and Hutter 2019) for everything",
        settings=_ADAMW,
        moments=2,
    ),
    "muon": OptimizerKind(
        _lazy("hairpin.optim.muon", "build"),
        "Muon (Jordan et al. 2024) for the matrices of blocks and AdamW for the rest",
        settings=(*_ADAMW, "momentum", "matrix_lr_scale"),
        moments=2,
        block_moments=1,
        peak_lr=3e-3,  # for every width: an orthogonal step has the same size in all
        stacks_matrices=True,
    ),
}


@dataclass(frozen=True)
class TrackerKind:
    """A built-in tracker.

    Args:
        make: () → a `reports.trackers.tracker.Tracker` that has not started.
        package: the module that the extra of the tracker's name installs; None: it needs none.
        entry: its folder or file in a run's folder, if it may have one there.
        stays_here: it only writes files in the run's folder, so that a config file alone may
            enable it.
        address: the key of the table `track` that says where it writes, if there is one.
    """

    make: Callable[[], Any]
    package: str | None = None
    entry: str | None = None
    stays_here: bool = False
    address: str | None = None


TRACKERS = {
    "tensorboard": TrackerKind(
        _lazy("hairpin.reports.trackers.tensorboard", "TensorBoard"),
        package="tensorboard",
        entry="tensorboard",
        stays_here=True,
    ),
    "wandb": TrackerKind(
        _lazy("hairpin.reports.trackers.wandb", "WeightsAndBiases"), package="wandb", entry="wandb"
    ),
    "mlflow": TrackerKind(
        _lazy("hairpin.reports.trackers.mlflow", "MLflow"),
        package="mlflow",
        entry="mlruns",
        address="mlflow_uri",
    ),
}

# Built-in names of each kind; those that a plugin adds are in `REGISTERED`.
BUILT_IN = {
    "schedule": tuple(CURVES),
    "optimizer": tuple(OPTIMIZERS),
    "model": tuple(ARCHITECTURES),
    "loss": ("cross-entropy",),
    "tracker": tuple(TRACKERS),
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
        kind: "schedule", "optimizer", "model", "loss" or "tracker".
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
    length_independent_updates: Callable[[Schedule], int] | None = None,
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
        length_independent_updates: returns the number of leading updates whose rate does not depend
            on the run's length; None: those of warmup and the first after it.
        settled: the former name of `length_independent_updates`.

    Raises:
        PluginError: the name is taken. Training with it: a rate is not finite, or below 0.
    """
    found = _register("schedule", name, lr)

    def checked(schedule: Schedule, update: int) -> float:
        rate = lr(schedule, update)
        if not (isinstance(rate, int | float) and math.isfinite(rate) and rate >= 0):
            raise PluginError(
                f"{found.place}: the schedule {name!r} gives {rate!r} as the learning rate of "
                f"update {update}; it must be a finite number, 0 or more"
            )
        return float(rate)

    independent = length_independent_updates or settled or (lambda schedule: schedule.warmup + 1)
    curve(name, decays=decays, length_independent_updates=independent)(checked)


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


def register_tracker(name: str, make: Callable[[], Any]) -> None:
    """Register `name` as a tracker, which `--track NAME` has follow a run.

    Args:
        name: lower-case letters, digits, - and _.
        make: () → a `hairpin.reports.trackers.tracker.Tracker`; a class will do. It is called in
            the tracker's own thread once for each process of a run, in the first of several.

    Raises:
        PluginError: the name is taken.
    """
    _register("tracker", name, make)


def known(kind: str) -> tuple[str, ...]:
    """Return all current names of a kind."""
    return (*BUILT_IN[kind], *(name for its, name in REGISTERED if its == kind))


def registered(kind: str, name: str) -> Registered | None:
    """Return the component that a plugin registered under a name; None: there is none."""
    return REGISTERED.get((kind, name))


def is_name(name: str) -> bool:
    """Return True if something may be registered under a name."""
    return _NAME.fullmatch(name) is not None


def no_such_name(kind: str, name: str) -> str:
    """Return words about a name that nothing has registered, with the nearest that is known."""
    names = known(kind)
    near = difflib.get_close_matches(name, names, n=1)
    meant = f", but {near[0]!r}" if near else ""
    return (
        f"there is no {name!r}{meant}; choose one of {', '.join(names)}, or name the file of the "
        "plugin that has it with --plugin"
    )


def forget(found: Registered) -> None:
    """Unregister a name."""
    REGISTERED.pop((found.kind, found.name), None)
    if found.kind == "schedule":
        CURVES.pop(found.name, None)


def _register(kind: str, name: str, make: Callable[..., Any]) -> Registered:
    caller = sys._getframe(2)
    here = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    if not isinstance(name, str) or not is_name(name):
        raise PluginError(
            f"{here}: {name!r} is not a valid name for a {kind}: use lower-case letters, digits, "
            "- and _, with a letter first"
        )
    if not callable(make):
        raise PluginError(f"{here}: the {kind} {name!r} is not a function or class, but {make!r}")
    if name in known(kind):
        raise PluginError(f"{here}: the {kind} {name!r} is already registered; choose another name")
    code = getattr(inspect.unwrap(make), "__code__", None)
    file, line = caller.f_code.co_filename, caller.f_lineno
    if code is not None and code.co_filename == file:
        line = code.co_firstlineno
    found = Registered(kind, name, make, file, line)
    REGISTERED[kind, name] = found
    return found
