"""Makes arms comparable: settings that they leave open are chosen once, for all.

The first arm is filled in as a run would be. The others take its choices where they leave a setting
open: size, vocabulary, batch, precision, evaluation. Settings that differ on purpose, and those
that depend on them (the default learning rate of another optimizer, say), stay their own.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hairpin.config.checks import value_of
from hairpin.config.load import short_tree, with_values
from hairpin.config.settings import Config
from hairpin.errors import ConfigError
from hairpin.experiments.arms import LENGTHS, RequestedArm
from hairpin.launch.request import length_of
from hairpin.planning import choose
from hairpin.planning.measure.fill_run import FilledRun, fill_run
from hairpin.planning.sizes import count_parameters
from hairpin.reports.formats import format_count
from hairpin.runs.experiment_folder import Arm
from hairpin.runs.watcher import Watcher
from hairpin.tasks.pretraining import text_of
from hairpin.training.budget import Budget

# Two concurrent runs are slower than one alone: they share caches and memory bandwidth.
_CROWDED_SLOWDOWN = 0.8
_EVALUATING = 1.25
# Fraction of a run's time for which its size is chosen: many updates tell more than a low loss.
_SIZE_SHARE = 0.3
_MIN_UPDATES = 20
_EVALUATIONS = 4
_EVALUATION_SHARE = 0.04  # validation tokens in an evaluation, per training token of the run
_MIN_EVALUATION_TOKENS = 32_768
_SHARED = (
    "data.hash", "data.split", "tokenizer.vocabulary", "model.layers", "model.heads", "model.width",
    "model.context", "train.tokens_per_update", "execution.device", "execution.precision",
    "execution.compile", "execution.threads", "execution.memory_gigabytes",
)  # fmt: skip


@dataclass(frozen=True)
class PreparedArms:
    """Arms that can be compared.

    Args:
        arms: with everything that matters filled in.
        text: what they train on, in a few words.
        model: a line about the first, and about the intended differences.
        equal: the quantity held equal; "": none, as they differ in length on purpose.
        seconds_per_run: about how long one takes alongside others.
    """

    arms: tuple[Arm, ...]
    text: str
    model: str
    equal: str
    seconds_per_run: float


def prepare_arms(
    asked: Sequence[RequestedArm],
    seconds_per_run: float | None,
    equal: str | None,
    threads: int,
    watcher: Watcher,
) -> PreparedArms:
    """Fill in the settings that arms leave open.

    Args:
        asked: the arms; the first decides for all.
        seconds_per_run: the time for a run; None: the configs set the length.
        equal: "tokens", "updates" or "time"; None: tokens, or an arm's own length if it has one.
        threads: compute threads in each run.
        watcher: display of the preparation.

    Raises:
        UserError: an arm is invalid.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first = _prepare_first(asked[0].config, seconds_per_run, watcher)
        filled = [first, *(_prepare_like(arm, first, equal, watcher) for arm in asked[1:])]
    finally:
        torch.set_num_threads(before)
    arms: list[Arm] = []
    for arm, found in zip(asked, filled, strict=True):
        peak_lr = found.config.schedule.peak_lr
        assert peak_lr
        config = short_tree(_with_lr_settings_open(arm.config, found.config, first.config))
        twin = next((a.name for a in arms if a.config == config and a.peak_lr == peak_lr), None)
        arms.append(Arm(arm.name, dict(arm.changes), config, peak_lr, twin))
    lengths = {arm.name: _tokens_of(found) for arm, found in zip(asked, filled, strict=True)}
    differ = equal is None and any(
        abs(_tokens_of(found) - _tokens_of(first)) >= (found.config.train.tokens_per_update or 1)
        for found in filled
    )
    seconds = max(_seconds_of(found) for found in filled)
    model = _model_of(first, lengths if differ else {})
    text = text_of(first.config.data)
    return PreparedArms(tuple(arms), text, model, "" if differ else equal or "tokens", seconds)


def _model_of(first: FilledRun, lengths: Mapping[str, int]) -> str:
    """Return a line about the first arm, with the length of each if they differ."""
    updates, tokens = first.config.train.updates, first.config.train.tokens_per_update
    assert updates and tokens
    parameters = format_count(count_parameters(first.shape).total)
    precision = first.config.execution.precision
    if lengths:
        each = ", ".join(f"{name} of {length:,}" for name, length in lengths.items())
        return f"{parameters} parameters, {precision}; unequal tokens: {each}"
    return (
        f"{parameters} parameters, {updates:,} updates of {tokens:,} tokens "
        f"({first.epochs:.2g} passes), {precision}"
    )


def _tokens_of(filled: FilledRun) -> int:
    """Return the tokens that a whole run trains on."""
    train = filled.config.train
    assert train.updates and train.tokens_per_update
    return train.updates * train.tokens_per_update


def _prepare_first(config: Config, seconds: float | None, watcher: Watcher) -> FilledRun:
    """Fill in the first arm; if no length is set, with a size and a length that fit `seconds`.

    Raises:
        ConfigError: there is hardly time for an update.
    """
    config = with_values(config, {"execution.compile": "off", "evaluate.sample_tokens": 0})
    if seconds is None or length_of(config):
        return fill_run(config, None, watcher)
    # Text is prepared meanwhile, so the resulting length is meaningless.
    sized = fill_run(config, Budget(_SIZE_SHARE * seconds, time.monotonic()), watcher)
    fitting = int(seconds * _CROWDED_SLOWDOWN / _EVALUATING / sized.seconds_per_update)
    updates = min(fitting, choose.most_updates(sized.config, len(sized.prepared.train)))
    if updates < _MIN_UPDATES:
        raise ConfigError(
            f"--budget leaves {seconds:.1f}s for each run, {updates} updates on this machine: "
            "give more time, fewer arms or seeds, or a smaller --size"
        )
    shared = {key: value_of(sized.config, key) for key in _SHARED}
    return fill_run(with_values(config, {**shared, "train.updates": updates}), None, watcher)


def _prepare_like(
    arm: RequestedArm, first: FilledRun, equal: str | None, watcher: Watcher
) -> FilledRun:
    """Fill in an arm from the first where it leaves settings open, with the same length."""
    config, like = arm.config, first.config
    values = {
        key: value_of(like, key)
        for key in _SHARED
        if value_of(config, key) in (None, "auto")
        and not (key.startswith("model.") and config.model.size)
        and not (key.startswith("data.") and _texts(config) != _texts(like))
        and not (key == "tokenizer.vocabulary" and config.tokenizer.kind != "bpe")
    }
    values |= {"execution.compile": "off", "evaluate.sample_tokens": 0}
    varied = bool(set(LENGTHS) & set(arm.changes))
    own_length = equal is None and (varied or not _same_length(config, like))
    if not own_length:
        values |= {"train.updates": like.train.updates, "train.tokens": None, "train.epochs": None}
    filled = fill_run(with_values(config, values), None, watcher)
    if own_length or equal == "updates":
        return filled
    return _with_equal_length(filled, first, equal, watcher)


def _with_equal_length(
    filled: FilledRun, first: FilledRun, equal: str | None, watcher: Watcher
) -> FilledRun:
    """Return the arm with the length that gives it the tokens, or the time, of the first."""
    like, config = first.config.train, filled.config
    assert like.updates and like.tokens_per_update and config.train.tokens_per_update
    if equal == "time":
        updates = like.updates * first.seconds_per_update / filled.seconds_per_update
    else:
        updates = math.ceil(like.updates * like.tokens_per_update / config.train.tokens_per_update)
    length = {"train.updates": max(2, round(updates))}
    if length["train.updates"] == config.train.updates:
        return filled
    open_ones = {
        "schedule.warmup_updates": None,
        "evaluate.every_updates": None,
        "evaluate.tokens": None,
        "evaluate.train_tokens": None,
        "checkpoint.every_updates": None,
    }
    return fill_run(with_values(config, {**open_ones, **length}), None, watcher)


def _with_lr_settings_open(asked: Config, filled: Config, first: Config) -> Config:
    """Return the filled-in config with the settings that depend on the learning rate as requested,
    and evaluations that suit a comparison: few, of many tokens, the same for every arm.
    """
    train, context = first.train, filled.model.context
    assert filled.train.updates and context and train.updates and train.tokens_per_update
    tokens = max(
        _MIN_EVALUATION_TOKENS,
        int(_EVALUATION_SHARE * train.updates * train.tokens_per_update),
    )
    every = math.ceil(filled.train.updates / _EVALUATIONS)
    return with_values(
        filled,
        {
            "schedule.min_lr": asked.schedule.min_lr,
            "train.seed": 0,
            "evaluate.every_updates": asked.evaluate.every_updates or every,
            "evaluate.tokens": asked.evaluate.tokens or tokens,
            "evaluate.train_tokens": asked.evaluate.train_tokens or 8 * context,
            "evaluate.sample_tokens": 0,
            "checkpoint.every_updates": asked.checkpoint.every_updates or every,
            "checkpoint.keep": 1,
        },
    )


def _same_length(config: Config, like: Config) -> bool:
    """True if the config leaves its length open, or asks for the first arm's."""
    return not length_of(config) or config.train.updates == like.train.updates


def _seconds_of(filled: FilledRun) -> float:
    updates = filled.config.train.updates
    assert updates
    return updates * filled.seconds_per_update / _CROWDED_SLOWDOWN * _EVALUATING + 1.0


def _texts(config: Config) -> tuple[Any, ...]:
    return (config.data.texts, config.data.corpus, config.data.sources)
