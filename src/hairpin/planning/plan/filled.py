"""Fill in a config as `hairpin train` would, without training: by timing this machine, or on
paper.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hairpin.config.checks import FIXED_VOCABULARIES
from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.blend import survey_text
from hairpin.data.shards import require_enough
from hairpin.errors import ConfigError
from hairpin.launch.request import name_of
from hairpin.model.shape import Shape
from hairpin.planning import choose
from hairpin.planning.memory import Job, peak_memory
from hairpin.planning.plan.text import Text, tokens_of
from hairpin.runs.watcher import Watcher
from hairpin.system.spinning import threads_are_decided

if TYPE_CHECKING:
    from hairpin.planning.measure.timing import Rehearsal

_MUCH_TEXT_BYTES = 10**12  # if none is named: enough text for any vocabulary


@dataclass(frozen=True)
class Filled:
    """A config with only machine-dependent settings left open, and what it was filled from.

    Args:
        config: with length, schedule, batch and micro-batch.
        shape: of the network.
        text: the training text; None: none was named.
        rehearsal: the measurements; None: there are none.
        precisions: of matrix products that a run may choose from.
        import_seconds: that torch and hairpin took to import; None: they were not.
        without_rehearsal: the reason why nothing was measured, if it should have been.
    """

    config: Config
    shape: Shape
    text: Text | None
    rehearsal: "Rehearsal | None"
    precisions: tuple[str, ...]
    import_seconds: float | None
    without_rehearsal: str | None


def fill(
    config: Config, budget_seconds: float | None, watcher: Watcher, *, probe: bool, folder: Path
) -> Filled:
    """Fill in the open settings.

    Args:
        config: as requested.
        budget_seconds: wall time of the run; None: unlimited.
        watcher: display of the preparation.
        probe: whether this machine is measured.
        folder: on the disk of the run.

    Raises:
        ConfigError, CorpusError: the request is invalid.
    """
    if not probe:
        _require_no_machine(config, budget_seconds)
    start = time.perf_counter()
    config = with_values(config, {"execution.device": _device(config, probe)})
    import_seconds = time.perf_counter() - start if probe else None
    if config.execution.threads == "auto" and threads_are_decided():
        config = with_values(config, {"execution.threads": "all"})
    has_text = config.data.is_named
    config = choose.fill_size(
        config,
        seconds_left=(lambda: budget_seconds) if budget_seconds else None,
        flops_per_second=lambda: _flops(config),
        train_bytes=lambda: _train_bytes(config, watcher) if has_text else _MUCH_TEXT_BYTES,
    )
    text = tokens_of(config, name_of(config), watcher.stage) if has_text else None
    vocabulary = text.vocabulary if text else _vocabulary(config)
    config = with_values(config, {"tokenizer.vocabulary": vocabulary})
    shape = Shape.of(config.model, vocabulary)
    if text:
        require_enough(text.train_tokens, text.val_tokens, shape.context)
        digests = {"data.hash": text.survey.hash}
        if not config.data.sources:
            digests["data.split"] = text.survey.split
        config = with_values(config, digests)
    precisions = _precisions(config)
    config = choose.fill_micro_batch(config, shape, lambda: _usable_gigabytes(config, probe))
    why_not = _too_large(config, shape, precisions) if probe else None
    rehearsal = None
    if probe and not why_not:
        rehearsal = _rehearse(config, shape, budget_seconds, watcher, folder)
        config = rehearsal.config
    config = _fill_length(config, shape, text, budget_seconds, rehearsal)
    return Filled(config, shape, text, rehearsal, precisions, import_seconds, why_not)


def _require_no_machine(config: Config, budget_seconds: float | None) -> None:
    """Check that no open setting needs a measurement.

    Raises:
        ConfigError: one does.
    """
    problems = []
    if budget_seconds and choose.is_open(config):
        problems.append(
            "the length is open, and measured; give --updates or --tokens, or leave out --no-probe"
        )
    if config.model.size is None and not config.model.width:
        problems.append("the size is open, and chosen by measuring; give --size, or no --no-probe")
    if problems:
        raise ConfigError(problems)


def _fill_length(
    config: Config,
    shape: Shape,
    text: Text | None,
    budget_seconds: float | None,
    rehearsal: "Rehearsal | None",
) -> Config:
    """Fill in the length as `planning/measure/settle` does."""
    if text is None and config.train.epochs:
        raise ConfigError("train.epochs: no text is named to pass over; name it, or give --tokens")
    tokens = text.train_tokens if text else 0
    if not choose.is_open(config):
        return choose.fill_length(config, tokens, None)
    if not budget_seconds:
        unlimited = text is None
        default = choose.default_tokens(shape, 10**15 if unlimited else tokens)
        return choose.fill_length(with_values(config, {"train.tokens": default}), tokens, None)
    if rehearsal is None:
        raise ConfigError("--budget: nothing could be measured here; give --updates or --tokens")
    config = choose.fill_budgeted_schedule(config)
    fitting = choose.updates_that_fit(budget_seconds, rehearsal.seconds_per_update)
    if text:
        fitting = min(fitting, choose.most_updates(config, tokens))
    return choose.fill_length(config, tokens, fitting)


def _vocabulary(config: Config) -> int:
    vocabulary = config.tokenizer.vocabulary or FIXED_VOCABULARIES.get(config.tokenizer.kind)
    assert vocabulary
    return vocabulary


def _train_bytes(config: Config, watcher: Watcher) -> int:
    return survey_text(config.data, on_progress=watcher.stage).train_bytes


def _device(config: Config, probe: bool) -> str:
    """Return the run's device; without torch an NVIDIA card is found by its driver's tool."""
    asked = config.execution.device
    if probe:
        from hairpin.machine.numerics import choose_device

        return choose_device(asked)
    if asked != "auto":
        return asked
    return "cuda" if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists() else "cpu"


def _precisions(config: Config) -> tuple[str, ...]:
    asked = config.execution.precision
    if asked != "auto":
        return (asked,)
    return ("float32",) if config.execution.device == "mps" else ("float32", "bfloat16")


def _usable_gigabytes(config: Config, probe: bool) -> float:
    if config.execution.device != "cuda":
        return choose.CPU_GIGABYTES
    if not probe:
        raise ConfigError(
            "execution.memory_gigabytes: a GPU's memory is asked of its driver; leave out "
            "--no-probe, or set it"
        )
    from hairpin.machine.numerics import usable_gigabytes

    return usable_gigabytes("cuda")


def free_bytes(device: str) -> int:
    """Return the memory free for a run: a card's if torch is loaded already, else the host's."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def _too_large(config: Config, shape: Shape, precisions: tuple[str, ...]) -> str | None:
    if config.execution.device == "cuda":
        return None
    needed = max(peak_memory(Job.of(config, shape, each)).total for each in precisions)
    free = free_bytes(config.execution.device)
    if needed <= free:
        return None
    return (
        f"it needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free, so "
        "nothing was measured"
    )


def _flops(config: Config) -> float:
    from hairpin.planning.measure.probe import measure_flops

    return measure_flops(config.execution.device, config.execution.precision)


def _rehearse(
    config: Config,
    shape: Shape,
    budget_seconds: float | None,
    watcher: Watcher,
    folder: Path,
) -> "Rehearsal":
    from hairpin.planning.measure.timing import rehearse
    from hairpin.training.budget import Budget

    watcher.notice("measuring an update, an evaluation and a sample on this machine")
    budget = Budget(budget_seconds, time.monotonic()) if budget_seconds else None
    where = folder if folder.is_dir() and os.access(folder, os.W_OK) else Path()
    return rehearse(config, shape, budget, watcher.notice, where)
