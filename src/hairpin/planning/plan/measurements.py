"""Measurements that fill in the config of a planned run: of this machine without training, or none
of it, on paper.
"""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.blend import survey_sources
from hairpin.data.shards import require_enough
from hairpin.errors import ConfigError
from hairpin.launch.request import name_of
from hairpin.model.shape import Shape
from hairpin.planning import choose
from hairpin.planning.fill import Filled, fill_config
from hairpin.planning.memory import Workload, peak_memory
from hairpin.planning.plan.text import Text, count_tokens
from hairpin.runs.watcher import Watcher
from hairpin.system.spinning import threads_are_decided

if TYPE_CHECKING:
    from hairpin.planning.measure.timing import PartTimings

_MUCH_TEXT_BYTES = 10**12  # if none is named: enough text for any vocabulary


@dataclass(frozen=True, kw_only=True)
class FilledPlan(Filled):
    """A config filled in without training, and the measurements that it was filled from."""

    measured: "OnPaper"


def fill_plan(
    config: Config, budget_seconds: float | None, watcher: Watcher, *, probe: bool, folder: Path
) -> FilledPlan:
    """Fill in the open settings as `hairpin train` would, without training.

    Args:
        config: as requested.
        budget_seconds: wall time of the run; None: unlimited.
        watcher: display of the preparation.
        probe: True to measure this machine; False: the rest of the settings stay open.
        folder: on the disk of the run.

    Raises:
        ConfigError, CorpusError: the request is invalid.
    """
    measured = (
        Measured(budget_seconds, watcher, folder) if probe else OnPaper(budget_seconds, watcher)
    )
    return FilledPlan(**vars(fill_config(config, measured)), measured=measured)


class OnPaper:
    """Measurements of a text alone, for `hairpin plan --no-probe`: torch is not imported.

    Args:
        budget_seconds: wall time of the run; None: unlimited.
        watcher: display of the preparation.

    Attributes:
        size: the text in tokens; None: no text is named.
        timings: of the parts of a run; None: not measured.
        precisions: of matrix products, that a run may choose from.
        import_seconds: that torch and hairpin took to import; None: they were not.
        not_measured: the reason why nothing was measured, if it should have been.
    """

    def __init__(self, budget_seconds: float | None, watcher: Watcher) -> None:
        self.seconds_left = (lambda: budget_seconds) if budget_seconds else None
        self.size: Text | None = None
        self.timings: PartTimings | None = None
        self.precisions: tuple[str, ...] = ()
        self.import_seconds: float | None = None
        self.not_measured: str | None = None
        self._budget_seconds = budget_seconds
        self._watcher = watcher

    def fill_start(self, config: Config) -> Config:
        self._require_all_known(config)
        config = with_values(config, {"execution.device": self._device(config.execution.device)})
        if config.execution.threads == "auto" and threads_are_decided():
            config = with_values(config, {"execution.threads": "all"})
        return config

    def flops_per_second(self, config: Config) -> float:
        raise AssertionError("the size of the network was checked to be known")

    def train_bytes(self, config: Config) -> int:
        if not config.data.is_named:
            return _MUCH_TEXT_BYTES
        return survey_sources(config.data, on_progress=self._watcher.stage).train_bytes

    def text(self, config: Config) -> Text | None:
        if not config.data.is_named:
            return None
        self.size = count_tokens(config, name_of(config), self._watcher.stage)
        assert config.model.context
        require_enough(self.size.train_tokens, self.size.val_tokens, config.model.context)
        return self.size

    def usable_gigabytes(self, config: Config) -> float:
        if config.execution.device == "cuda":
            raise ConfigError(
                "execution.memory_gigabytes: the GPU's driver must be asked for it; leave out "
                "--no-probe, or set it"
            )
        return choose.CPU_GIGABYTES

    def time_update(self, config: Config, shape: Shape) -> tuple[Config, float | None]:
        if config.execution.deterministic:
            config = choose.without_timing(config, self._formats(config.execution.device))
        how = config.execution
        auto = how.precision == "auto"
        self.precisions = self._formats(how.device) if auto else (how.precision,)
        return config, None

    def _require_all_known(self, config: Config) -> None:
        """Check that no open setting needs a measurement.

        Raises:
            ConfigError: one does.
        """
        problems = []
        if self._budget_seconds and choose.is_open(config):
            problems.append(
                "the length depends on measured speed; give --updates or --tokens, or leave out "
                "--no-probe"
            )
        if config.model.size is None and not config.model.width:
            problems.append(
                "the size depends on measured speed; give --size, or leave out --no-probe"
            )
        if problems:
            raise ConfigError(problems)

    def _device(self, requested: str) -> str:
        """Return the run's device; an NVIDIA card is found by its driver's tool."""
        if requested != "auto":
            return requested
        return "cuda" if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists() else "cpu"

    def _formats(self, device: str) -> tuple[str, ...]:
        """Return the precisions that `auto` chooses from, the safe one first; on a GPU as if it was
        not older than Ampere.
        """
        return ("float32",) if device == "mps" else ("float32", "bfloat16")


class Measured(OnPaper):
    """Measurements of a text and of this machine for `hairpin plan`, without training.

    Args:
        budget_seconds, watcher: as in `OnPaper`.
        folder: on the disk of the run.
    """

    def __init__(self, budget_seconds: float | None, watcher: Watcher, folder: Path) -> None:
        super().__init__(budget_seconds, watcher)
        self._folder = folder if folder.is_dir() and os.access(folder, os.W_OK) else Path()

    def flops_per_second(self, config: Config) -> float:
        from hairpin.planning.measure.probe import measure_flops

        return measure_flops(config.execution.device, config.execution.precision)

    def usable_gigabytes(self, config: Config) -> float:
        from hairpin.planning.measure.room import usable_gigabytes

        return usable_gigabytes(config.execution.device)

    def time_update(self, config: Config, shape: Shape) -> tuple[Config, float | None]:
        from hairpin.planning.measure.timing import time_parts
        from hairpin.training.budget import Budget

        config, _ = super().time_update(config, shape)
        self.not_measured = self._too_large(config, shape)
        if self.not_measured:
            return config, None
        self._watcher.notice("measuring an update, an evaluation and a sample on this machine")
        seconds = self._budget_seconds
        budget = Budget(seconds, time.monotonic()) if seconds else None
        self.timings = time_parts(config, shape, budget, self._watcher.notice, self._folder)
        return self.timings.config, self.timings.seconds_per_update

    def _require_all_known(self, config: Config) -> None:
        """Check nothing: all is measured."""

    def _device(self, requested: str) -> str:
        start = time.perf_counter()
        from hairpin.machine.numerics import choose_device

        device = choose_device(requested)
        self.import_seconds = time.perf_counter() - start
        return device

    def _formats(self, device: str) -> tuple[str, ...]:
        from hairpin.machine.numerics import formats

        return tuple(formats(device))

    def _too_large(self, config: Config, shape: Shape) -> str | None:
        if config.execution.device == "cuda":
            return None
        jobs = [Workload.of(config, shape, precision) for precision in self.precisions]
        needed = max(peak_memory(job).total for job in jobs)
        free = free_bytes(config.execution.device)
        if needed <= free:
            return None
        return (
            f"it needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free, so "
            "speed was not measured"
        )


def free_bytes(device: str) -> int:
    """Return the memory free for a run: a card's if torch is loaded already, else the host's."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
