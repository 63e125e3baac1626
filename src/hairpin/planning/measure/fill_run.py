"""Measurements that fill in the config of a run on this machine, while its text is prepared.

`fill_run` is `planning.fill.fill_config` by these measurements, with the text and the weights that
were opened on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.batches import Batches, MixedBatches
from hairpin.data.blend import (
    prepare_text,
    require_enough_text,
    survey_sources,
    text_notices,
)
from hairpin.data.mixture import Mixture
from hairpin.data.shards import Prepared
from hairpin.data.tokenizers import Tokenizer
from hairpin.machine.numerics import choose_device, formats
from hairpin.machine.threads import may_use_one_thread
from hairpin.model.gpt import GPT
from hairpin.model.plugged import new_network
from hairpin.model.shape import Shape
from hairpin.planning import choose
from hairpin.planning.fill import Filled, TextSize, fill_config
from hairpin.planning.measure import probe
from hairpin.planning.measure.room import require_room, usable_gigabytes
from hairpin.plugins.registry import BUILT_IN
from hairpin.runs.watcher import Watcher
from hairpin.training.budget import Budget
from hairpin.training.task import Samples
from hairpin.weights.origin import Origin, open_start, with_start

_MEASURING = "measuring an update on this machine, compiled where that may help"
# To time this run's own update: a share of the budget, within bounds.
_PROBE_SHARE, _LEAST_PROBE_SECONDS, _MOST_PROBE_SECONDS = 0.012, 0.5, 1.0
_COMPILED_BUDGET_SECONDS = 600.0  # from which on compiling is tried on a CPU


@dataclass(frozen=True, kw_only=True)
class FilledRun(Filled):
    """A complete config of pretraining, its text, and the weights that it starts from.

    Args:
        prepared: tokenizer and token streams.
        origin: the weights that training starts from, if they were read.
    """

    prepared: Prepared
    origin: Origin | None


def fill_run(
    config: Config, budget: Budget | None, watcher: Watcher, tokenizer: Tokenizer | None = None
) -> FilledRun:
    """Prepare the text, and fill in what `config` leaves open.

    Args:
        config: as requested; `None` means choose.
        budget: wall time; None: the config sets the length.
        watcher: receives events of the preparation.
        tokenizer: the run's own, if it has one already.

    Raises:
        ConfigError, CorpusError: the request is impossible.
    """
    measured = PretrainingMeasurements(budget, watcher, tokenizer)
    filled = fill_config(config, measured)
    for line in filled.notices:
        watcher.notice(line)
    assert measured.prepared
    return FilledRun(**vars(filled), prepared=measured.prepared, origin=measured.origin)


class RunMeasurements:
    """Measurements of this machine for a run that it is about to train.

    Args:
        budget: wall time; None: the config sets the length.
        watcher: receives events of the preparation.
        tokenizer: the run's own, if it has one already.
    """

    def __init__(
        self, budget: Budget | None, watcher: Watcher, tokenizer: Tokenizer | None
    ) -> None:
        self.seconds_left = (lambda: budget.left) if budget else None
        self.origin: Origin | None = None
        self.tokenizer = tokenizer
        self._budget = budget
        self._watcher = watcher
        self._is_new = tokenizer is None

    def fill_start(self, config: Config) -> Config:
        config = with_values(config, {"execution.device": choose_device(config.execution.device)})
        if not self._is_new:  # such a run has a tokenizer, a shape, and its initial weights
            is_older = config.execution.threads == "auto"  # than the setting
            return with_values(config, {"execution.threads": "all"}) if is_older else config
        if config.start.path is None:
            return config
        self.origin = open_start(config)
        self.tokenizer = self.origin.tokenizer
        return with_start(config, self.origin)

    def flops_per_second(self, config: Config) -> float:
        self._watcher.stage("measuring the speed of this machine", 0, 0)
        return probe.measure_flops(config.execution.device, config.execution.precision)

    def usable_gigabytes(self, config: Config) -> float:
        return usable_gigabytes(config.execution.device)

    def _time_update(self, config: Config, model: GPT, batches: Samples) -> tuple[Config, float]:
        self._watcher.stage(_MEASURING, 0, 0)
        return fill_speed(config, model, batches, self._budget, self._watcher.notice)


class PretrainingMeasurements(RunMeasurements):
    """Measurements of this machine and of the text that a run is about to learn.

    Args:
        budget, watcher, tokenizer: as in `RunMeasurements`.
    """

    prepared: Prepared | None = None
    _asked_vocabulary = 0

    def fill_start(self, config: Config) -> Config:
        config = super().fill_start(config)
        self._asked_vocabulary = config.tokenizer.vocabulary or 0
        return config

    def train_bytes(self, config: Config) -> int:
        return survey_sources(config.data, on_progress=self._watcher.stage).train_bytes

    def text(self, config: Config) -> TextSize:
        tokenizer = self.tokenizer or config.tokenizer
        prepared = prepare_text(config.data, tokenizer, on_progress=self._watcher.stage)
        for line in text_notices(prepared.survey) if self._is_new else ():
            self._watcher.notice(line)
        if self._asked_vocabulary > (found := prepared.tokenizer.vocabulary):
            self._watcher.notice(
                f"tokenizer.vocabulary: {self._asked_vocabulary:,} were asked for, and the text "
                f"has pairs for {found:,}; the vocabulary has that many"
            )
        assert config.model.context
        require_enough_text(prepared, config.model.context)
        self.prepared = prepared
        return TextSize.of(prepared)

    def time_update(self, config: Config, shape: Shape) -> tuple[Config, float]:
        require_room(config, shape)
        assert self.prepared
        batches = batches_of(self.prepared, shape.context, config.train.seed)
        return self._time_update(config, new_network(shape), batches)


def batches_of(prepared: Prepared, context: int, seed: int) -> Batches | MixedBatches:
    """Return the training batches of a text, or of a mixture."""
    if not prepared.sources:
        return Batches(prepared.train, context, seed)
    return MixedBatches(
        {source.name: source.prepared.train for source in prepared.sources},
        Mixture(tuple(source.share for source in prepared.sources)),
        context,
        seed,
    )


def fill_speed(
    config: Config,
    model: GPT,
    batches: Samples,
    budget: Budget | None,
    notice: Callable[[str], None],
) -> tuple[Config, float]:
    """Fill in precision, compilation and a micro-batch that fits; return seconds per update too.
    Measure carefully only if the result is needed.

    Args:
        config: with micro-batch and tokens per update.
        model: like the run's, to be thrown away.
        batches: of the run.
        budget: wall time that sets the length; None: the config sets it.
        notice: called if compiling fails, or a micro-batch does not fit.

    Raises:
        ConfigError: not even one sequence fits in memory.
    """
    if config.execution.deterministic:
        config = choose.without_timing(config, formats(config.execution.device))
    compiling = compile_choices(config, budget.seconds if budget else None)
    how = config.execution
    times_threads = how.threads == "auto" and may_use_one_thread(how.device)
    is_open = how.precision == "auto" or len(compiling) > 1 or times_threads
    matters = is_open or (budget and choose.is_open(config))
    share = _PROBE_SHARE * (budget.seconds if budget else 0.0)
    seconds = min(max(_LEAST_PROBE_SECONDS, share), _MOST_PROBE_SECONDS) if matters else 0.0
    speed = probe.measure_update(
        config, model, batches, seconds, compiling=compiling, notice=notice
    )
    chosen = {
        "execution.precision": speed.precision,
        "execution.compile": "on" if speed.compiled else "off",
        "execution.micro_batch": speed.micro_batch,
        "execution.threads": speed.threads,
    }
    if is_open:
        notice(
            f"timed on this machine: {speed.precision}, {speed.threads} "
            f"{'thread' if speed.threads == 'one' else 'threads'}, "
            f"{'compiled' if speed.compiled else 'not compiled'}; the next run may choose "
            "differently and differ in the last digits, unless it repeats this run's config.toml "
            "or uses --set execution.deterministic=true"
        )
    return with_values(config, chosen), speed.seconds_per_update


def compile_choices(config: Config, budget_seconds: float | None) -> tuple[bool, ...]:
    """Return the options for compiling: one, or both to be timed for the faster.

    A minute of compiling pays in any run on a GPU, where a block is a hundred small kernels. On a
    CPU it may not, as most of the time is in matrix products that compiling does not change; so
    it is tried if the time budget allows.

    Args:
        config: with a device.
        budget_seconds: wall time for the whole run; None: the config sets the length.
    """
    how = config.execution
    if config.model.architecture not in BUILT_IN["model"]:
        return (False,)
    if how.compile != "auto":
        return (how.compile == "on",)
    if how.device == "cuda":
        return (True,)
    tries = how.device == "cpu" and budget_seconds and budget_seconds >= _COMPILED_BUDGET_SECONDS
    return (False, True) if tries else (False,)
