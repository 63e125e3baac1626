"""Values for the settings that a config leaves open, so that the stored config is complete.

Everything here is arithmetic on facts measured elsewhere; docs/choices.md explains the numbers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hairpin.config.checks import decays, schedule_of, value_of
from hairpin.config.load import with_values
from hairpin.config.recipes import SIZES
from hairpin.config.settings import Config
from hairpin.data.bpe import choose_vocabulary
from hairpin.model.shape import Shape
from hairpin.planning.sizes import count_parameters, micro_batch_sequences
from hairpin.plugins.registry import OPTIMIZERS

DEFAULT_BUDGET_SECONDS = 180.0
CLOSING_SECONDS = 4.0  # the last checkpoint, the summary and the plots
GPU_MEMORY_SHARE = 0.9  # of free memory: the rest covers what the estimate misses
CPU_GIGABYTES = 3.0  # that a run may take on a machine of its own
START_LR_FRACTION = 0.25  # of the peak for random weights, for pretrained weights
BUDGETED_DECAY_FRACTION = 0.6
_MAX_PASSES = 10
_MIN_UPDATES = 600
MILESTONES = 10  # evaluations, samples and checkpoints in a run, besides the one at update 0
# Validation tokens in an evaluation, as a share of the run's training tokens; training tokens are
# a quarter of that. Ten evaluations take 2% to 3% of the run: a forward pass is a third of a step.
_EVALUATION_SHARE = 0.005
_MILESTONE_SHARE = 0.06  # of the time, for evaluations and samples, until measured


@dataclass(frozen=True)
class Rung:
    """A step of the ladder of sizes.

    Args:
        size: a name in `SIZES`.
        from_flops: least operations that a budget must cover to be worth this size.
        vocabulary: tokens, for BPE.
        tokens_per_update: batch.
    """

    size: str
    from_flops: float
    vocabulary: int
    tokens_per_update: int


LADDER = (
    Rung("nano", 0.0, 1024, 1024),
    Rung("tiny", 1e12, 4096, 2048),
    Rung("mini", 2e14, 4096, 2048),
    Rung("small", 5e14, 8192, 4096),
    Rung("medium", 8e15, 16_384, 8192),
    Rung("base", 1e17, 16_384, 16_384),
    Rung("gpt2", 3e18, 32_768, 65_536),
)


_MIN_CONTEXT = min(SIZES[rung.size]["context"] for rung in LADDER)


def rung_for(flops: float) -> Rung:
    """Return the highest rung that this many floating-point operations cover.

    They are rounded to a power of four first, so that measurement noise seldom changes the size.
    """
    rounded = 4.0 ** round(math.log(max(flops, 1.0), 4))
    return [rung for rung in LADDER if rung.from_flops <= rounded][-1]


def rung_of(size: str) -> Rung:
    """Return the rung whose vocabulary and batch suit a size: larger GPT-2s share the last."""
    return next((rung for rung in LADDER if rung.size == size), LADDER[-1])


def rung_of_width(width: int) -> Rung:
    """Return the rung whose batch suits a model of this width, ignoring its other sizes."""
    return [rung for rung in LADDER if SIZES[rung.size]["width"] <= width or rung is LADDER[0]][-1]


def fill_size(
    config: Config,
    *,
    seconds_left: Callable[[], float] | None,
    flops_per_second: Callable[[], float],
    train_bytes: Callable[[], int],
) -> Config:
    """Fill in size, batch, peak learning rate and vocabulary where they are unset. Measure the
    machine and the text only if the result is needed.

    Args:
        config: as asked, with a device.
        seconds_left: of the time budget; None: no budget.
        flops_per_second: that the machine reaches.
        train_bytes: of text.
    """
    width = config.model.width
    if width and config.model.context and config.tokenizer.vocabulary:
        rung = LADDER[0]
        if config.start.path and config.train.tokens_per_update is None:
            rung = rung_of_width(width)
        if seconds_left and LADDER.index(rung) > 0:  # a batch that fits in the time
            rung = min(rung, rung_for(flops_per_second() * seconds_left()), key=LADDER.index)
        return fill_shape(config, rung)
    text_bytes, rung = train_bytes(), LADDER[0]
    if text_bytes <= _MIN_CONTEXT:
        pass  # no size suits it, as its tokens will show: the machine need not be measured
    elif config.model.size is None and not config.model.width:
        flops = flops_per_second()
        rung = rung_for(flops * (seconds_left() if seconds_left else DEFAULT_BUDGET_SECONDS))
    elif config.model.size:
        rung = rung_of(config.model.size)
    config = fill_shape(config, rung)
    if config.tokenizer.kind == "bpe" and config.tokenizer.vocabulary is None:
        vocabulary = min(rung.vocabulary, choose_vocabulary(text_bytes))
        config = with_values(config, {"tokenizer.vocabulary": vocabulary})
    return config


def fill_micro_batch(config: Config, shape: Shape, gigabytes: Callable[[], float]) -> Config:
    """Fill in the number of sequences in a forward pass that helps and fits, if it is unset.

    Args:
        config: with a device and tokens per update.
        shape: of the model; its context is the length of the longest sequence.
        gigabytes: that a run may take (10^9 bytes).
    """
    if config.execution.memory_gigabytes is None:
        config = with_values(config, {"execution.memory_gigabytes": gigabytes()})
    if config.execution.micro_batch is not None:
        return config
    assert config.execution.memory_gigabytes
    assert config.train.tokens_per_update and config.model.context
    samples = config.train.tokens_per_update // config.model.context
    memory = config.execution.memory_gigabytes * 1e9
    sequences = micro_batch_sequences(shape, samples, memory, config.execution.device)
    return with_values(config, {"execution.micro_batch": sequences})


def without_timing(config: Config, precisions: Sequence[str]) -> Config:
    """Return the config with timed settings chosen by the kind of device alone, so that the same
    command computes the same bits each time on one machine.

    Args:
        config: with a device.
        precisions: those that a run chooses from on the device, the safe one first.
    """
    on_cuda = config.execution.device == "cuda"
    chosen = {
        "execution.precision": precisions[-1] if on_cuda else "float32",
        "execution.threads": "all",
        # On CUDA it is not timed.
        **({} if on_cuda else {"execution.compile": "off"}),
    }
    is_open = {key: value for key, value in chosen.items() if value_of(config, key) == "auto"}
    return with_values(config, is_open)


def fill_shape(config: Config, rung: Rung) -> Config:
    """Fill in size, batch and peak learning rate where they are unset."""
    values: dict[str, Any] = {}
    if config.model.width is None:
        values["model.size"] = config.model.size or rung.size
    for key, value in SIZES[config.model.size or rung.size].items():
        if getattr(config.model, key) is None:
            values[f"model.{key}"] = value
    config = with_values(config, values)
    context, width = config.model.context, config.model.width
    assert context and width
    values = {}
    if config.train.tokens_per_update is None:
        values["train.tokens_per_update"] = max(1, rung.tokens_per_update // context) * context
    if config.schedule.peak_lr is None:
        fraction = START_LR_FRACTION if config.start.path else 1.0
        kind = OPTIMIZERS.get(config.optimizer.kind)
        if kind and kind.peak_lr:
            peak_lr = kind.peak_lr * fraction
        else:
            peak_lr = default_peak_lr(width, fraction)
        values["schedule.peak_lr"] = peak_lr
    return with_values(config, values)


def default_peak_lr(width: int, fraction: float = 1.0) -> float:
    """Return AdamW's peak learning rate, smaller for wider networks (two significant digits).

    Args:
        width: of the residual stream.
        fraction: of the rate for random weights.
    """
    return float(f"{fraction * min(3e-3, 0.32 / width):.1e}")


def is_open(config: Config) -> bool:
    """Return True if no setting gives the run's length."""
    return config.train.updates is None and config.train.tokens is None and not config.train.epochs


def default_tokens(shape: Shape, train_tokens: int) -> int:
    """Return the tokens to train a named size on by default: 20 a parameter (Hoffmann et al.
    2022), but at most four passes over the text (Muennighoff et al. 2023).
    """
    return min(20 * count_parameters(shape).total, 4 * train_tokens)


def updates_that_fit(seconds_left: float, seconds_per_update: float) -> int:
    """Return the updates that fit in a time budget, with evaluations, samples and the end."""
    return max(
        4, int((seconds_left - CLOSING_SECONDS) * (1 - _MILESTONE_SHARE) / seconds_per_update)
    )


def fill_budgeted_schedule(config: Config) -> Config:
    """Fill in a curve for a run whose length a time budget sets: level at first, so that the length
    can be corrected once the speed is known, then a long linear decay.
    """
    if config.schedule.kind is not None:
        return config
    values: dict[str, Any] = {"schedule.kind": "wsd"}
    if config.schedule.decay_updates is None and config.schedule.decay_tokens is None:
        values["schedule.decay_fraction"] = BUDGETED_DECAY_FRACTION
    return with_values(config, values)


def most_updates(config: Config, train_tokens: int) -> int:
    """Return the longest run that a time budget sets: about where validation stops improving. A
    small model improves for ten passes over a text, and any needs a few hundred updates.
    """
    assert config.train.tokens_per_update
    return max(_MIN_UPDATES, int(_MAX_PASSES * train_tokens / config.train.tokens_per_update))


def fill_length(config: Config, train_tokens: int, updates: int | None) -> Config:
    """Fill in updates, warmup, evaluations and checkpoints where they are unset.

    Args:
        config: with a shape.
        train_tokens: tokens in the training split.
        updates: those that fit in the time budget; None: the config sets the length.

    Raises:
        ConfigError: the length does not suit the schedule.
    """
    train = config.train
    assert train.tokens_per_update
    values: dict[str, Any] = {}
    if train.updates is None:
        tokens = train.tokens
        if train.epochs is not None:
            tokens = math.ceil(train.epochs * train_tokens)
        chosen = updates if tokens is None else math.ceil(tokens / train.tokens_per_update)
        assert chosen
        values = {"train.updates": chosen, "train.tokens": None, "train.epochs": None}
    return _fill_milestones(with_values(config, values))


def evaluation_interval(updates: int) -> int:
    """Return the updates between evaluations of a run of this length, if none are set."""
    return max(1, math.ceil(updates / MILESTONES))


def _fill_milestones(config: Config) -> Config:
    """Fill in warmup in updates and the intervals of evaluations and saves, by the length."""
    schedule, train = schedule_of(config), config.train
    assert train.updates and train.tokens_per_update
    values: dict[str, Any] = {"schedule.kind": schedule.kind}
    if config.schedule.min_lr is None and decays(schedule.kind):
        values["schedule.min_lr"] = schedule.min_lr
    if config.schedule.warmup_updates is None:
        values["schedule.warmup_updates"] = schedule.warmup
        values["schedule.warmup_fraction"] = values["schedule.warmup_tokens"] = None
    every = config.evaluate.every_updates or evaluation_interval(train.updates)
    values["evaluate.every_updates"] = every
    values["checkpoint.every_updates"] = config.checkpoint.every_updates or every
    if config.evaluate.tokens is None:
        share = int(_EVALUATION_SHARE * train.updates * train.tokens_per_update)
        context = config.model.context or 1
        values["evaluate.tokens"] = max(share, 16 * context)
    if config.evaluate.train_tokens is None:
        val_tokens: int = values.get("evaluate.tokens") or config.evaluate.tokens or 1
        values["evaluate.train_tokens"] = max(1, val_tokens // 4)
    return with_values(config, values)
