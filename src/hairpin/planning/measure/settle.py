"""Filling in a config: open settings are measured and filled in, the rest is unchanged.

    start → shape → shards → micro-batch → precision, compiled or not → length

A complete config is returned unchanged and nothing is measured, so that a repeat and a resume use
the values of the first run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hairpin.config.checks import value_of
from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.batches import Batches, MixedBatches
from hairpin.data.blend import (
    notices_of,
    prepare_text,
    require_enough_text,
    survey_text,
)
from hairpin.data.mixture import Mixture
from hairpin.data.shards import Prepared
from hairpin.data.tokenizers import Tokenizer
from hairpin.machine import compiler
from hairpin.machine.memory import require_room
from hairpin.machine.numerics import choose_device, formats, usable_gigabytes
from hairpin.machine.threads import may_use_one_thread
from hairpin.model.gpt import GPT
from hairpin.model.plugged import new_network
from hairpin.model.shape import Shape
from hairpin.planning import choose
from hairpin.planning.measure import probe
from hairpin.runs.watcher import Watcher
from hairpin.training.budget import Budget
from hairpin.training.task import Samples
from hairpin.weights.origin import Origin
from hairpin.weights.start import open_start, with_start

MEASURING = "measuring an update on this machine, compiled where that may help"
# To time this run's own update: a share of the budget, within bounds.
_PROBE_SHARE, _LEAST_PROBE_SECONDS, _MOST_PROBE_SECONDS = 0.012, 0.5, 1.0
_EPOCHS_THAT_MEMORISE = 20


@dataclass(frozen=True)
class Settled:
    """A complete config, and its text.

    Args:
        config: all of it.
        prepared: tokenizer and token streams.
        shape: of the model.
        seconds_per_update: as probed.
        origin: the weights that training starts from, if they were read.
        without_length: the config when only the run's length was open, if the time budget chose
            it; None if the length was set.
    """

    config: Config
    prepared: Prepared
    shape: Shape
    seconds_per_update: float
    origin: Origin | None
    without_length: Config | None

    @property
    def epochs(self) -> float:
        """Passes over the training text in the whole run."""
        assert self.config.train.updates and self.config.train.tokens_per_update
        tokens = self.config.train.updates * self.config.train.tokens_per_update
        return tokens / len(self.prepared.train)

    @property
    def source_epochs(self) -> dict[str, float]:
        """Passes over each source of a mixture in the whole run."""
        whole = self.epochs * len(self.prepared.train)
        return {
            source.name: whole * source.share / len(source.prepared.train)
            for source in self.prepared.sources
        }

    def corrected(self, updates: int) -> Config:
        """Return the config for another length. Warmup and the evaluation set, already in use, stay
        as they are.
        """
        assert self.without_length
        used = {
            "schedule.warmup_fraction": None,
            "schedule.warmup_tokens": None,
            "schedule.warmup_updates": self.config.schedule.warmup_updates,
            "evaluate.tokens": self.config.evaluate.tokens,
            "evaluate.train_tokens": self.config.evaluate.train_tokens,
        }
        open_config = with_values(self.without_length, used)
        tokens = len(self.prepared.train)
        most = choose.most_updates(open_config, tokens)
        return choose.fill_length(open_config, tokens, min(updates, most))


def settle(
    config: Config, budget: Budget | None, watcher: Watcher, tokenizer: Tokenizer | None = None
) -> Settled:
    """Fill in what `config` leaves open, for this text, machine and time budget.

    Args:
        config: as asked; `None` means choose.
        budget: wall time; None: the config sets the length.
        watcher: receives events of the preparation.
        tokenizer: the run's own, if it has one already.

    Raises:
        ConfigError, CorpusError: the request is impossible.
    """
    config, origin = settle_start(config, tokenizer)
    asked_vocabulary = config.tokenizer.vocabulary
    config = _settle_shape(config, budget, watcher)
    is_new = tokenizer is None
    tokenizer = origin.tokenizer if origin else tokenizer
    prepared = prepare_text(config.data, tokenizer or config.tokenizer, on_progress=watcher.stage)
    for line in notices_of(prepared.survey) if is_new else ():
        watcher.notice(line)
    if (asked_vocabulary or 0) > (found := prepared.tokenizer.vocabulary):
        watcher.notice(
            f"tokenizer.vocabulary: {asked_vocabulary:,} were asked for, and the text has pairs "
            f"for {found:,}; the vocabulary has so many"
        )
    config = with_values(config, learned_values(prepared))
    shape = Shape.of(config.model, prepared.tokenizer.vocabulary)
    require_enough_text(prepared, shape.context)
    config = settle_micro_batch(config, shape)
    batches = batches_of(prepared, shape.context, config.train.seed)
    watcher.stage(MEASURING, 0, 0)
    config, seconds = settle_speed(config, new_network(shape), batches, budget, watcher.notice)
    tokens = len(prepared.train)
    if choose.is_open(config) and not budget:
        config = with_values(config, {"train.tokens": choose.default_tokens(shape, tokens)})
    if not choose.is_open(config):
        settled = choose.fill_length(config, tokens, None)
        return Settled(settled, prepared, shape, seconds, origin, None)
    assert budget
    config = choose.fill_budgeted_schedule(config)
    fitting = choose.updates_that_fit(budget.left, seconds)
    most = choose.most_updates(config, tokens)
    settled = choose.fill_length(config, tokens, min(fitting, most))
    if fitting > most:
        watcher.notice(
            f"little text for this budget: the run ends early, after {most:,} updates, because "
            "what comes then is mostly learned by heart; --epochs makes it longer"
        )
    return Settled(settled, prepared, shape, seconds, origin, None if fitting > most else config)


def settle_start(config: Config, tokenizer: Tokenizer | None) -> tuple[Config, Origin | None]:
    """Fill in the device, and the shape of the weights that training starts from; a run that has a
    tokenizer has both already.
    """
    config = with_values(config, {"execution.device": choose_device(config.execution.device)})
    if tokenizer and config.execution.threads == "auto":  # a run older than the setting
        config = with_values(config, {"execution.threads": "all"})
    if config.start.path is None or tokenizer:
        return config, None
    origin = open_start(config)
    return with_start(config, origin), origin


def learned_values(prepared: Prepared) -> dict[str, Any]:
    """Return settings learned from the text: formats read, the split, and its hash."""
    values = {
        "data.hash": prepared.survey.hash,
        "tokenizer.vocabulary": prepared.tokenizer.vocabulary,
    }
    if prepared.sources:
        tables = prepared.data.model_dump(mode="json", exclude_none=True)["sources"]
        return values | {"data.sources": tables}
    read_as = {} if prepared.data.format == "text" else {"data.format": prepared.data.format}
    return (
        values
        | {"data.split": prepared.survey.split, "data.column": prepared.data.column}
        | read_as
    )


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


def memorisation_warning(settled: Settled) -> str | None:
    """Return a warning if this many passes over a small text would be memorised."""
    often = {
        name: epochs
        for name, epochs in settled.source_epochs.items()
        if epochs > _EPOCHS_THAT_MEMORISE
    }
    if often:
        times = ", ".join(f"{name} {epochs:,.0f} times" for name, epochs in often.items())
        return (
            f"a small source for its weight: the run goes over {times} and will learn it by heart; "
            "give it more text, or a smaller weight"
        )
    if settled.epochs <= _EPOCHS_THAT_MEMORISE:
        return None
    return (
        f"little text for so long a run: it goes over the {len(settled.prepared.train):,} training "
        f"tokens {settled.epochs:,.0f} times and will learn them by heart; give it more text, or "
        "less time with --budget or --epochs"
    )


def _settle_shape(config: Config, budget: Budget | None, watcher: Watcher) -> Config:
    def measure() -> float:
        watcher.stage("measuring the speed of this machine", 0, 0)
        return probe.measure_flops(config.execution.device, config.execution.precision)

    return choose.fill_size(
        config,
        seconds_left=(lambda: budget.left) if budget else None,
        flops_per_second=measure,
        train_bytes=lambda: survey_text(config.data, on_progress=watcher.stage).train_bytes,
    )


def settle_micro_batch(config: Config, shape: Shape) -> Config:
    """Fill in the number of sequences in a forward pass that helps and fits, if it is unset.

    Args:
        config: with tokens per update.
        shape: of the model; its context is the length of the longest sequence.

    Raises:
        ConfigError: the model alone is too large for this machine.
    """
    require_room(config, shape)
    return choose.fill_micro_batch(config, shape, lambda: usable_gigabytes(config.execution.device))


def settle_speed(
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
        config = without_timing(config)
    compiling = compiler.choices(config, budget.seconds if budget else None)
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
            f"{'compiled' if speed.compiled else 'not compiled'}; another time may choose "
            "otherwise and differ in the last digits, unless it repeats this run's config.toml or "
            "has --set execution.deterministic=true"
        )
    return with_values(config, chosen), speed.seconds_per_update


def without_timing(config: Config) -> Config:
    """Return the config with timed settings chosen by the kind of device alone, so that the same
    command computes the same bits each time on one machine.
    """
    on_cuda = config.execution.device == "cuda"
    chosen = {
        "execution.precision": formats("cuda")[-1] if on_cuda else "float32",
        "execution.threads": "all",
        # On CUDA it is not timed.
        **({} if on_cuda else {"execution.compile": "off"}),
    }
    is_open = {key: value for key, value in chosen.items() if value_of(config, key) == "auto"}
    return with_values(config, is_open)
