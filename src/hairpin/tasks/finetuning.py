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
from hairpin.planning.fill import Filled, TextSize, fill_config
from hairpin.planning.measure.fill_run import RunMeasurements
from hairpin.planning.measure.room import require_room
from hairpin.planning.sizes import count_parameters
from hairpin.runs import events
from hairpin.runs.watcher import Watcher
from hairpin.tasks.classification import LabelTally
from hairpin.tasks.divided import Divided, divide_records
from hairpin.tasks.examples import ExampleBatches, ExampleSet
from hairpin.tasks.instructions import prompt_of, question_of
from hairpin.tasks.samples import prompt_warnings, sample_writer
from hairpin.tasks.template import render
from hairpin.training.budget import Budget
from hairpin.training.evaluate import Tally, TextTally
from hairpin.training.task import Task, WriteSample
from hairpin.weights.origin import Origin, load_start

_FROZEN_LR_FRACTION = 1.0  # of the peak for random weights: the few that train are far from done
_EXAMPLES_PER_UPDATE = 8
_EPOCHS = 5.0
_MAX_EVALUATED = 1000  # examples, each time
_SAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class _FilledRun(Filled):
    """A complete config of fine-tuning, its examples, and the weights that it starts from."""

    tokenizer: Tokenizer
    divided: Divided
    origin: Origin | None


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
    filled = _fill_run(config, tokenizer, watcher)
    config, divided = filled.config, filled.divided
    context, asked = filled.shape.context, config.evaluate
    assert asked.tokens and asked.train_tokens
    return Task(
        config=config,
        tokenizer=filled.tokenizer,
        new_model=lambda: new_model(config, filled.shape),
        load_start=load_start(config, filled.origin),
        batches=ExampleBatches(divided.train, config.train.seed),
        train_set=ExampleSet(divided.train, asked.train_tokens // context),
        val_set=ExampleSet(divided.val, asked.tokens // context),
        tally=tally_of(config, filled.tokenizer, config.execution.device),
        sample_writers=lambda model, stopped: _sample_writers(filled, model, stopped),
        plan=lambda: _plan(filled),
        warnings=(
            *(filled.origin.notices if filled.origin else ()),
            *divided.notices,
            *_prompt_warnings(filled),
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


class _Measurements(RunMeasurements):
    """Measurements of this machine and of the records that a run is about to learn.

    A sequence counts as a whole context, however short it is: tokens per update then give a fixed
    number of examples, and all arithmetic is that of pretraining.

    Args:
        watcher, tokenizer: as in `RunMeasurements`; epochs set the length, not a time budget.
    """

    divided: Divided

    def __init__(self, watcher: Watcher, tokenizer: Tokenizer | None) -> None:
        super().__init__(None, watcher, tokenizer)

    def fill_start(self, config: Config) -> Config:
        config = super().fill_start(config)
        assert self.tokenizer
        self.divided = divide_records(config, self.tokenizer)
        return _fill_examples(self.divided)

    def train_bytes(self, config: Config) -> int:
        raise AssertionError("the weights that training starts from decide size and vocabulary")

    def text(self, config: Config) -> TextSize:
        context, divided = config.model.context, self.divided
        assert context
        train, val = len(divided.train) * context, len(divided.val) * context
        return TextSize({}, train, val, longest=divided.longest)

    def time_update(self, config: Config, shape: Shape) -> tuple[Config, float]:
        require_room(config, replace(shape, context=self.divided.longest))
        if config.execution.compile == "auto":  # each batch is as long as its longest example
            config = with_values(config, {"execution.compile": "off"})
        batches = ExampleBatches(self.divided.train, config.train.seed)
        return self._time_update(config, new_model(config, shape), batches)


def _fill_run(config: Config, tokenizer: Tokenizer | None, watcher: Watcher) -> _FilledRun:
    """Divide the records, and fill in what `config` leaves open."""
    measured = _Measurements(watcher, tokenizer)
    filled = fill_config(config, measured)
    assert measured.tokenizer
    return _FilledRun(
        **vars(filled),
        tokenizer=measured.tokenizer,
        divided=measured.divided,
        origin=measured.origin,
    )


def _fill_examples(divided: Divided) -> Config:
    """Fill in batch, peak learning rate, length and evaluations if unset."""
    config, model = divided.config, divided.config.model
    assert model.context and model.width
    context, tokens = model.context, config.train.tokens_per_update
    examples = config.finetune.examples_per_update
    if tokens is None:
        tokens = (examples or _EXAMPLES_PER_UPDATE) * context
    frozen = config.finetune.layers is not None
    fraction = _FROZEN_LR_FRACTION if frozen else choose.START_LR_FRACTION
    values: dict[str, Any] = {
        "train.tokens_per_update": tokens,
        "finetune.examples_per_update": tokens // context,
        "schedule.peak_lr": config.schedule.peak_lr
        or choose.default_peak_lr(model.width, fraction),
    }
    if choose.is_open(config):
        values["train.epochs"] = _EPOCHS
    if config.evaluate.tokens is None:
        values["evaluate.tokens"] = min(len(divided.val), _MAX_EVALUATED) * context
    if config.evaluate.train_tokens is None:
        evaluated = values.get("evaluate.tokens") or config.evaluate.tokens
        values["evaluate.train_tokens"] = evaluated
    return with_values(config, values)


def _sample_writers(
    filled: _FilledRun, model: GPT, stopped: Callable[[], bool]
) -> tuple[WriteSample, ...]:
    """Return writers of responses to a few validation instructions; none for a classifier."""
    config, asked = filled.config, filled.config.evaluate
    if config.finetune.kind == "classify" or asked.sample_tokens == 0:
        return ()
    if asked.sample_prompt is not None:
        template = config.finetune.template
        prompts = [(render(template, asked.sample_prompt), f"{asked.sample_prompt}\n")]
    else:
        rows = list(islice(_rows_that_fit(filled), _SAMPLES))
        prompts = [(prompt_of(row, config.finetune), question_of(row)) for row in rows]
    return tuple(
        sample_writer(config, model, filled.tokenizer, prompt, stopped, shown)
        for prompt, shown in prompts
    )


def _prompt_warnings(filled: _FilledRun) -> tuple[str, ...]:
    config, asked = filled.config, filled.config.evaluate.sample_prompt
    if asked is None or config.finetune.kind == "classify":
        return ()
    prompt = render(config.finetune.template, asked)
    return prompt_warnings(config, filled.tokenizer, prompt)


def _rows_that_fit(filled: _FilledRun) -> Iterator[Row]:
    """Yield validation rows whose whole prompt fits the context, with room for an answer."""
    room = filled.shape.context // 2
    for row in filled.divided.val_rows:
        if len(filled.tokenizer.encode(prompt_of(row, filled.config.finetune))) < room:
            yield row


def _plan(filled: _FilledRun) -> events.Plan:
    config, divided = filled.config, filled.divided
    updates, tokens = config.train.updates, config.train.tokens_per_update
    assert updates and tokens
    head = (filled.shape.width + 1) * len(config.finetune.labels)
    seconds = updates * filled.seconds_per_update
    samples = updates * tokens // filled.shape.context
    return events.Plan(
        text=Path(config.data.texts[0]).name,
        parameters=count_parameters(filled.shape).total + head,
        updates=updates,
        warmup=schedule_of(config).warmup,
        tokens_per_update=tokens,
        train_tokens=sum(len(example.inputs) for example in divided.train),
        val_tokens=sum(len(example.inputs) for example in divided.val),
        epochs=samples / len(divided.train),
        seconds=seconds,
        ends=time.time() + seconds,
        start=filled.origin.words if filled.origin else None,
        examples=len(divided.train),
        labels=config.finetune.labels or None,
        records=divided.used.as_json(),
    )
