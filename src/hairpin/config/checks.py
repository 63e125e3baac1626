"""Rules that span several keys: contradictions, and the schedule of a config."""

import math
from collections.abc import Iterator
from typing import Any

from hairpin.config.settings import Config
from hairpin.config.settings import Schedule as Curve
from hairpin.config.shapes import architecture, shapes
from hairpin.errors import ConfigError, HairpinError, PluginError
from hairpin.plugins.files import is_present, plugin_error_line
from hairpin.plugins.registry import BUILT_IN, KEYS, known, no_such_name, registered
from hairpin.schedules.curves import CURVES, Schedule
from hairpin.schedules.extensions import extended

DEFAULT_CURVE = "cosine"
DEFAULT_WARMUP_FRACTION = 0.05
DEFAULT_DECAY_FRACTION = 0.2
DEFAULT_MIN_LR_FRACTION = 0.1
_CHECKED_UPDATES = 500  # updates whose rates are checked before a run, of a plugin's schedule

# Tokens of the tokenizers whose vocabulary is not learned.
FIXED_VOCABULARIES = {"bytes": 257, "gpt2": 50_257}


_WARMUP = ("schedule.warmup_updates", "schedule.warmup_tokens", "schedule.warmup_fraction")
# Keys that set the same thing in different ways: one of each group may be set.
ALTERNATIVES = (
    ("data.texts", "data.corpus", "data.sources"),
    ("train.updates", "train.tokens", "train.epochs"),
    _WARMUP,
    ("schedule.decay_updates", "schedule.decay_tokens", "schedule.decay_fraction"),
)


def contradictions(config: Config) -> list[str]:
    """Return a line for each pair of settings that contradict each other."""
    return [
        *_names(config),
        *_alternatives(config),
        *_sources(config),
        *shapes(config),
        *_vocabulary(config),
        *architecture(config),
        *_schedule(config),
        *_extensions(config),
        *_budget(config),
        *_finetuning(config),
        *_plugin_network_problems(config),
    ]


def schedule_of(config: Config) -> Schedule:
    """Return the schedule of a config whose updates, tokens per update and peak lr are known.

    Raises:
        ConfigError: the settings make no schedule.
    """
    asked, whole, tokens = config.schedule, config.train.updates, config.train.tokens_per_update
    assert whole and tokens and asked.peak_lr
    extensions = [(extension.at, extension.policy) for extension in asked.extensions]
    updates = extensions[0][0] if extensions else whole
    warmup = _in_updates(
        asked.warmup_updates, asked.warmup_tokens, asked.warmup_fraction, tokens, updates
    )
    decay = _in_updates(
        asked.decay_updates, asked.decay_tokens, asked.decay_fraction, tokens, updates
    )
    kind = asked.kind or DEFAULT_CURVE
    lowest = asked.peak_lr * DEFAULT_MIN_LR_FRACTION if asked.min_lr is None else asked.min_lr
    base = _scheduled(
        asked,
        kind=kind,
        updates=updates,
        warmup=round(DEFAULT_WARMUP_FRACTION * updates) if warmup is None else warmup,
        peak_lr=asked.peak_lr,
        initial_lr=asked.initial_lr,
        min_lr=lowest if decays(kind) or extensions else 0.0,
        decay=max(1, round(DEFAULT_DECAY_FRACTION * updates)) if decay is None else decay,
        cycles=asked.cycles,
    )
    return _tried(extended(base, extensions, whole))


def _scheduled(asked: Curve, **facts: Any) -> Schedule:
    """Return the schedule; if it is invalid, the error's lines name the settings behind it."""
    warmup = [key for key in _WARMUP if getattr(asked, key.partition(".")[2]) is not None]
    keys = ("schedule.kind", *(warmup or _WARMUP[:1]), "schedule.peak_lr")
    try:
        return Schedule(**facts)
    except ConfigError as error:
        of = f"of {', '.join(keys)} and train.updates"
        raise ConfigError(f"{line} ({of})" for line in error.problems) from None


def _tried(schedule: Schedule) -> Schedule:
    """Return the schedule, after checking rates along all of it if it is a plugin's."""
    if registered("schedule", schedule.kind) is None:
        return schedule
    stride = -(-schedule.updates // _CHECKED_UPDATES)
    try:
        for update in (*range(0, schedule.updates, stride), schedule.updates - 1):
            schedule(update)
    except HairpinError:
        raise
    except Exception as error:
        raise PluginError(f"{plugin_error_line(error)} (the schedule {schedule.kind!r})") from error
    return schedule


def example_schedule(config: Config) -> Schedule:
    """Return a config's schedule for display before any text is known. A missing peak is assumed:
    its height changes the figures, not the curve.

    Raises:
        ConfigError: the settings make no schedule, or give no length.
    """
    train, asked = config.train, config.schedule
    updates = train.updates
    if updates is None and train.tokens and train.tokens_per_update:
        updates = math.ceil(train.tokens / train.tokens_per_update)
    if updates is None:
        raise ConfigError(
            "the length of the run is not set: give --updates, or --tokens with "
            "--set train.tokens_per_update=…"
        )
    if (asked.warmup_tokens or asked.decay_tokens) and not train.tokens_per_update:
        raise ConfigError("warmup or decay in tokens: add --set train.tokens_per_update=…")
    assumed = max(1e-3, asked.initial_lr or 0.0, asked.min_lr or 0.0)
    known = {
        "train": {"updates": updates, "tokens_per_update": train.tokens_per_update or 1},
        "schedule": {"peak_lr": asked.peak_lr or assumed},
    }
    return schedule_of(
        config.model_copy(
            update={
                table: getattr(config, table).model_copy(update=values)
                for table, values in known.items()
            }
        )
    )


def _in_updates(
    in_updates: int | None,
    in_tokens: int | None,
    fraction: float | None,
    tokens_per_update: int,
    updates: int,
) -> int | None:
    if in_updates is not None:
        return in_updates
    if in_tokens is not None:
        return -(-in_tokens // tokens_per_update)
    return None if fraction is None else round(fraction * updates)


def _names(config: Config) -> Iterator[str]:
    """Yield unregistered names. Those of a plugin that was not run here may be right: the code
    that uses them finds out.
    """
    if not all(is_present(plugin.sha256) for plugin in config.plugins):
        return
    for kind, key in KEYS.items():
        name = value_of(config, key)
        if name is not None and name not in known(kind):
            yield f"{key}: {no_such_name(kind, name)}"


def decays(kind: str) -> bool:
    """Return True if a curve decays to the minimum; one of a plugin not run here may."""
    return kind not in CURVES or CURVES[kind].decays


def _plugin_network_problems(config: Config) -> Iterator[str]:
    """Yield settings that only hairpin's own networks support."""
    name = config.model.architecture
    if name not in BUILT_IN["model"]:
        for what, key in (
            (config.finetune.kind == "classify", "finetune.kind"),
            (config.start.path, "start.path"),
            (config.execution.compile == "on", "execution.compile"),
        ):
            if what:
                yield f"{key}: not with the network of a plugin, model.architecture = {name!r}"
    if config.train.loss not in BUILT_IN["loss"] and config.finetune.kind == "classify":
        yield "train.loss: labels are learned by cross entropy; remove the key"


def _alternatives(config: Config) -> Iterator[str]:
    for keys in ALTERNATIVES:
        given = [key for key in keys if value_of(config, key) not in (None, ())]
        if len(given) > 1:
            yield f"{' and '.join(given)}: they say the same thing in two ways; keep one"


def _sources(config: Config) -> Iterator[str]:
    """Yield problems with the sources of a mixture."""
    sources = config.data.sources
    names = [source.name.lower() for source in sources]  # folders have these names
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"data.sources: two sources are called {name}; give each a name of its own"
    for source in sources:
        if bool(source.texts) == bool(source.corpus):
            yield f"data.sources: {source.name} needs texts or a corpus, not both"
    without = [source.name for source in sources if source.weight is None]
    if without and len(without) < len(sources):
        yield (
            f"data.sources: {', '.join(without)} has no weight, and others have one; give each a "
            "weight, or none, and size decides"
        )


def value_of(config: Config, key: str) -> Any:
    """Return a config's value under a dotted key."""
    table, _, name = key.partition(".")
    return getattr(getattr(config, table), name)


def _vocabulary(config: Config) -> Iterator[str]:
    if config.tokenizer.kind != "bpe" and config.tokenizer.vocabulary not in (
        None,
        FIXED_VOCABULARIES[config.tokenizer.kind],
    ):
        yield (
            f"tokenizer.vocabulary: {config.tokenizer.kind} has a fixed size; remove the key or set"
            " tokenizer.kind=bpe"
        )


def _schedule(config: Config) -> Iterator[str]:
    schedule, kind = config.schedule, config.schedule.kind or DEFAULT_CURVE
    for name in ("initial_lr", "min_lr"):
        lr = getattr(schedule, name)
        if lr is not None and schedule.peak_lr is not None and lr > schedule.peak_lr:
            yield f"schedule.{name}: {lr} is above the peak, schedule.peak_lr = {schedule.peak_lr}"
    if schedule.min_lr is not None and not decays(kind):
        yield f"schedule.min_lr: schedule.kind={kind} does not decay to a minimum; remove the key"
    if kind != "wsd":
        for name in ("decay_updates", "decay_tokens", "decay_fraction"):
            if getattr(schedule, name) is not None:
                yield f"schedule.{name}: only for schedule.kind=wsd, not {kind}"


def _extensions(config: Config) -> Iterator[str]:
    """Yield problems with a run's extensions, once its schedule is known."""
    known = (config.train.updates, config.train.tokens_per_update, config.schedule.peak_lr)
    if config.schedule.extensions and all(known):
        try:
            schedule_of(config)
        except ConfigError as error:
            yield from error.problems


def _finetuning(config: Config) -> Iterator[str]:
    """Yield problems with the settings of fine-tuning."""
    asked, context, tokens = config.finetune, config.model.context, config.train.tokens_per_update
    if asked.kind is None:
        return
    if config.start.path is None:
        yield f"start.path: {asked.kind} starts from a trained model; name one with --from"
    if config.data.corpus or len(config.data.texts) != 1:
        yield "data.texts: fine-tuning takes one file of records; name it with --data"
    if asked.kind == "instruct" and "{instruction}" not in asked.template:
        yield "finetune.template: it has no {instruction}, so every prompt would be the same"
    if asked.labels and (len(asked.labels) < 2 or len(set(asked.labels)) < len(asked.labels)):
        yield "finetune.labels: at least two, and no label twice; or remove the key"
    examples = asked.examples_per_update
    if examples and tokens and context and tokens != examples * context:
        yield (
            f"finetune.examples_per_update and train.tokens_per_update: {examples} examples of "
            f"{context} are not {tokens} tokens; keep one"
        )


def _budget(config: Config) -> Iterator[str]:
    """Yield problems with the schedule's length that show before text and machine are read."""
    train, schedule = config.train, config.schedule
    kind = schedule.kind or DEFAULT_CURVE
    if train.updates and schedule.warmup_updates is not None:
        follow = train.updates - schedule.warmup_updates
        if follow < (2 if decays(kind) else 1):
            yield (
                f"schedule.warmup_updates: {schedule.warmup_updates} of {train.updates} updates "
                f"leave {max(0, follow)} for {kind}, which needs "
                f"{2 if decays(kind) else 1} or more; train.updates says how long the run is"
            )
