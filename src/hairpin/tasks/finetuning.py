"""Fine-tuning as a task: a collator, a loss and an evaluation for the one loop."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hairpin.config.checks import schedule_of
from hairpin.config.load import with_values
from hairpin.config.settings import Config
from hairpin.data.tables.records import Row
from hairpin.data.tokenizers import Tokenizer
from hairpin.errors import ConfigError
from hairpin.model.classifier import Classifier, freeze_below
from hairpin.model.gpt import GPT
from hairpin.model.plugged import new_network
from hairpin.model.shape import Shape
from hairpin.planning import choose
from hairpin.planning.measure.settle import (
    MEASURING,
    settle_micro_batch,
    settle_speed,
    settle_start,
)
from hairpin.planning.sizes import count_parameters
from hairpin.runs import events
from hairpin.runs.watcher import Watcher
from hairpin.tasks.divided import Divided, divide
from hairpin.tasks.examples import ExampleBatches, ExampleSet
from hairpin.tasks.instructions import prompt_of, question_of
from hairpin.tasks.labelled import LabelTally
from hairpin.tasks.samples import prompt_warnings, sample_writer
from hairpin.tasks.template import render
from hairpin.training.budget import Budget
from hairpin.training.evaluate import Tally, TextTally
from hairpin.training.task import Task, WriteSample
from hairpin.weights.origin import Origin
from hairpin.weights.start import load_start

_FROZEN_LR_FRACTION = 1.0  # of the peak for random weights: the few that train are far from done
_EXAMPLES_PER_UPDATE = 8
_EPOCHS = 5.0
_MOST_EVALUATED = 1000  # examples, each time
_SAMPLES = 3


@dataclass(frozen=True)
class _Settled:
    """A fully filled-in config and its examples."""

    config: Config
    tokenizer: Tokenizer
    shape: Shape
    divided: Divided
    origin: Origin | None
    seconds_per_update: float


def finetuning(
    config: Config, tokenizer: Tokenizer | None, budget: Budget | None, watcher: Watcher
) -> Task:
    """Return the task of training on records, with all open settings of `config` chosen.

    Args:
        config: as requested, with `finetune.kind` and `start.path`.
        tokenizer: the run's own, if it has one already.
        budget: not used: epochs set the length.
        watcher: receives warnings about this machine.

    Raises:
        ConfigError, CorpusError, RunError: the request is invalid.
    """
    settled = _settle(config, tokenizer, watcher)
    config, divided = settled.config, settled.divided
    context, asked = settled.shape.context, config.evaluate
    assert asked.tokens and asked.train_tokens
    return Task(
        config=config,
        tokenizer=settled.tokenizer,
        new_model=lambda: new_model(config, settled.shape),
        load_start=load_start(config, settled.origin),
        batches=ExampleBatches(divided.train, config.train.seed),
        train_set=ExampleSet(divided.train, asked.train_tokens // context),
        val_set=ExampleSet(divided.val, asked.tokens // context),
        tally=tally_of(config, settled.tokenizer, config.execution.device),
        sample_writers=lambda model, stopped: _sample_writers(settled, model, stopped),
        plan=lambda: _plan(settled),
        warnings=(
            *(settled.origin.notices if settled.origin else ()),
            *divided.notices,
            *_prompt_warnings(settled),
        ),
    )


def new_model(config: Config, shape: Shape) -> GPT:
    """Return a fine-tuned run's model with random weights, frozen as the config says.

    Raises:
        ConfigError: it has fewer blocks than are to be trained.
    """
    asked, seed = config.finetune, config.train.seed
    labels = len(asked.labels)
    model = (
        Classifier(shape, labels, seed) if asked.kind == "classify" else new_network(shape, seed)
    )
    try:
        freeze_below(model, asked.layers)
    except ValueError as error:
        raise ConfigError(f"finetune.layers: {error}") from None
    return model


def tally_of(config: Config, tokenizer: Tokenizer, device: str) -> Callable[[], Tally]:
    """Return a factory of the tally that evaluates a run on `device`: labels, or text."""
    if config.finetune.kind == "classify":
        return lambda: LabelTally(len(config.finetune.labels), device)
    token_bytes = tokenizer.token_bytes()
    return lambda: TextTally(token_bytes, device)


def _settle(config: Config, tokenizer: Tokenizer | None, watcher: Watcher) -> _Settled:
    config, origin = settle_start(config, tokenizer)
    tokenizer = origin.tokenizer if origin else tokenizer
    assert tokenizer
    shape = Shape.of(config.model, tokenizer.vocabulary)
    divided = divide(config, tokenizer)
    config = _fill(divided, shape)
    longest = replace(shape, context=divided.longest)
    config = settle_micro_batch(config, longest)
    if config.execution.compile == "auto":  # each batch is as long as its longest example
        config = with_values(config, {"execution.compile": "off"})
    batches = ExampleBatches(divided.train, config.train.seed)
    model = new_model(config, shape)
    watcher.stage(MEASURING, 0, 0)
    config, seconds = settle_speed(config, model, batches, None, watcher.notice)
    return _Settled(config, tokenizer, shape, divided, origin, seconds)


def _fill(divided: Divided, shape: Shape) -> Config:
    """Fill in batch, peak learning rate, length and evaluations if unset.

    A sequence counts as a whole context, however short it is: tokens per update then give a fixed
    number of examples, and all arithmetic is that of pretraining.
    """
    config, context = divided.config, shape.context
    tokens = config.train.tokens_per_update
    examples = config.finetune.examples_per_update
    if tokens is None:
        tokens = (examples or _EXAMPLES_PER_UPDATE) * context
    frozen = config.finetune.layers is not None
    fraction = _FROZEN_LR_FRACTION if frozen else choose.START_LR_FRACTION
    values: dict[str, Any] = {
        "train.tokens_per_update": tokens,
        "finetune.examples_per_update": tokens // context,
        "schedule.peak_lr": config.schedule.peak_lr
        or choose.default_peak_lr(shape.width, fraction),
    }
    if not (config.train.updates or config.train.tokens or config.train.epochs):
        values["train.epochs"] = _EPOCHS
    if config.evaluate.tokens is None:
        values["evaluate.tokens"] = min(len(divided.val), _MOST_EVALUATED) * context
    if config.evaluate.train_tokens is None:
        evaluated = values.get("evaluate.tokens") or config.evaluate.tokens
        values["evaluate.train_tokens"] = evaluated
    return choose.fill_length(with_values(config, values), len(divided.train) * context, None)


def _sample_writers(
    settled: _Settled, model: GPT, stopped: Callable[[], bool]
) -> tuple[WriteSample, ...]:
    """Return writers of responses to a few validation instructions; none for a classifier."""
    config, asked = settled.config, settled.config.evaluate
    if config.finetune.kind == "classify" or asked.sample_tokens == 0:
        return ()
    if asked.sample_prompt is not None:
        template = config.finetune.template
        prompts = [(render(template, asked.sample_prompt), f"{asked.sample_prompt}\n")]
    else:
        rows = list(islice(_rows_that_fit(settled), _SAMPLES))
        prompts = [(prompt_of(row, config.finetune), question_of(row)) for row in rows]
    return tuple(
        sample_writer(config, model, settled.tokenizer, prompt, stopped, shown)
        for prompt, shown in prompts
    )


def _prompt_warnings(settled: _Settled) -> tuple[str, ...]:
    config, asked = settled.config, settled.config.evaluate.sample_prompt
    if asked is None or config.finetune.kind == "classify":
        return ()
    prompt = render(config.finetune.template, asked)
    return prompt_warnings(config, settled.tokenizer, prompt)


def _rows_that_fit(settled: _Settled) -> Iterator[Row]:
    """Yield validation rows whose whole prompt fits the context, with room for an answer."""
    room = settled.shape.context // 2
    for row in settled.divided.val_rows:
        if len(settled.tokenizer.encode(prompt_of(row, settled.config.finetune))) < room:
            yield row


def _plan(settled: _Settled) -> events.Plan:
    config, divided = settled.config, settled.divided
    updates, tokens = config.train.updates, config.train.tokens_per_update
    assert updates and tokens
    head = (settled.shape.width + 1) * len(config.finetune.labels)
    seconds = updates * settled.seconds_per_update
    samples = updates * tokens // settled.shape.context
    return events.Plan(
        text=Path(config.data.texts[0]).name,
        parameters=count_parameters(settled.shape).total + head,
        updates=updates,
        warmup=schedule_of(config).warmup,
        tokens_per_update=tokens,
        train_tokens=sum(len(example.inputs) for example in divided.train),
        val_tokens=sum(len(example.inputs) for example in divided.val),
        epochs=samples / len(divided.train),
        seconds=seconds,
        ends=time.time() + seconds,
        start=settled.origin.words if settled.origin else None,
        examples=len(divided.train),
        labels=config.finetune.labels or None,
        records=divided.used.as_json(),
    )
