"""Pretraining as a task: the next token of a text."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from hairpin.config.checks import schedule_of
from hairpin.config.settings import Config, Data
from hairpin.data.batches import MixedWindows, Windows, windows_of
from hairpin.data.shards import Prepared
from hairpin.data.streams import TokenStream
from hairpin.data.tables.columns import quoted
from hairpin.data.tokenizers import Tokenizer
from hairpin.model.gpt import GPT
from hairpin.model.plugged import can_write, new_network
from hairpin.planning import choose
from hairpin.planning.measure.fill_run import FilledRun, batches_of, fill_run
from hairpin.planning.sizes import count_parameters
from hairpin.runs import events
from hairpin.runs.watcher import Watcher
from hairpin.tasks.memorisation import MemorisationMeasure
from hairpin.tasks.samples import prompt_from, prompt_warnings, sample_writer
from hairpin.training.budget import Budget, Pace
from hairpin.training.evaluate import TextTally
from hairpin.training.task import Task, WriteSample
from hairpin.weights.origin import load_start

_EPOCHS_THAT_MEMORISE = 20


def pretraining(
    config: Config, tokenizer: Tokenizer | None, budget: Budget | None, watcher: Watcher
) -> Task:
    """Return the task of learning a text, with everything that `config` leaves open filled in.

    Args:
        config: as requested; `None` means choose.
        tokenizer: the run's own, if it has one already.
        budget: wall time; None: the config sets the length.
        watcher: receives events of the preparation.

    Raises:
        ConfigError, CorpusError, RunError: the request is impossible.
    """
    filled = fill_run(config, budget, watcher, tokenizer)
    config, prepared, shape, origin = filled.config, filled.prepared, filled.shape, filled.origin
    token_bytes = prepared.tokenizer.token_bytes()
    cut = prompt_warnings(config, prepared.tokenizer, config.evaluate.sample_prompt)
    return Task(
        config=config,
        tokenizer=prepared.tokenizer,
        new_model=lambda: new_network(shape, config.train.seed),
        load_start=load_start(config, origin),
        batches=batches_of(prepared, shape.context, config.train.seed),
        train_set=evaluation_set(prepared, "train", shape.context, config.evaluate.train_tokens),
        val_set=evaluation_set(prepared, "val", shape.context, config.evaluate.tokens),
        tally=lambda: TextTally(token_bytes, config.execution.device),
        sample_writers=lambda model, stopped: _sample_writers(filled, model, stopped),
        plan=lambda: _plan(filled),
        warnings=(*(origin.notices if origin else ()), *_memorisation_warnings(filled), *cut),
        pace=_pace(filled, budget) if budget and filled.without_length else None,
        measure_memorisation=MemorisationMeasure(
            prepared.train, prepared.val, prepared.tokenizer, config.train.seed
        )
        if config.evaluate.sample_tokens and shape.is_built_in
        else None,
    )


def evaluation_set(
    prepared: Prepared, side: Literal["train", "val"], context: int, most_tokens: int | None
) -> Windows | MixedWindows:
    """Return a fixed set to measure a loss on; for a mixture one of each source.

    Args:
        prepared: the text.
        side: the stream.
        context: T, tokens in a window.
        most_tokens: approximate size; None: all.
    """

    def stream(text: Prepared) -> TokenStream:
        return text.train if side == "train" else text.val

    if not prepared.sources:
        return Windows(stream(prepared), context, most_tokens)
    return windows_of(
        {source.name: stream(source.prepared) for source in prepared.sources},
        {source.name: source.share for source in prepared.sources},
        context,
        most_tokens,
    )


def _sample_writers(
    filled: FilledRun, model: GPT, stopped: Callable[[], bool]
) -> tuple[WriteSample, ...]:
    config, prepared = filled.config, filled.prepared
    settings = config.evaluate
    if settings.sample_tokens == 0 or not can_write(model):
        return ()
    prompt = settings.sample_prompt
    if prompt is None:
        prompt = prompt_from(prepared.val, prepared.tokenizer)
    return (sample_writer(config, model, prepared.tokenizer, prompt, stopped),)


def _plan(filled: FilledRun) -> events.Plan:
    config = filled.config
    assert config.train.updates and config.train.tokens_per_update
    seconds = config.train.updates * filled.seconds_per_update
    return events.Plan(
        text=_text_and_column(filled),
        parameters=_parameters(filled),
        updates=config.train.updates,
        warmup=schedule_of(config).warmup,
        tokens_per_update=config.train.tokens_per_update,
        train_tokens=len(filled.prepared.train),
        val_tokens=len(filled.prepared.val),
        epochs=filled.epochs,
        seconds=seconds,
        ends=time.time() + seconds,
        start=filled.origin.words if filled.origin else None,
        sources=_sources(filled),
    )


def _pace(filled: FilledRun, budget: Budget) -> Pace:
    return Pace(
        budget,
        free_updates=schedule_of(filled.config).length_independent_updates,
        milestones=choose.MILESTONES,
        closing_seconds=choose.CLOSING_SECONDS,
        config_for=filled.with_updates,
    )


def _memorisation_warnings(filled: FilledRun) -> Iterator[str]:
    """Yield a warning if this many passes over a small text would memorise it."""
    often = {
        name: epochs
        for name, epochs in filled.source_epochs.items()
        if epochs > _EPOCHS_THAT_MEMORISE
    }
    if often:
        times = ", ".join(f"{name} {epochs:,.0f} times" for name, epochs in often.items())
        yield (
            f"a small source for its weight: the run repeats {times} and will memorise it; give "
            "it more text, or a smaller weight"
        )
    elif filled.epochs > _EPOCHS_THAT_MEMORISE:
        yield (
            f"small text for a run this long: it repeats the {len(filled.prepared.train):,} "
            f"training tokens {filled.epochs:,.0f} times and will memorise them; give it more "
            "text, or less time with --budget or --epochs"
        )


def _parameters(filled: FilledRun) -> int:
    if filled.shape.is_built_in:
        return count_parameters(filled.shape).total
    return sum(parameter.numel() for parameter in new_network(filled.shape).parameters())


def _sources(filled: FilledRun) -> dict[str, dict[str, float]] | None:
    epochs = filled.source_epochs
    return {
        source.name: {
            "share": source.share,
            "train_tokens": len(source.prepared.train),
            "val_tokens": len(source.prepared.val),
            "epochs": epochs[source.name],
        }
        for source in filled.prepared.sources
    } or None


def text_of(data: Data) -> str:
    """Describe the training text in a few words."""
    if data.corpus:
        return data.corpus
    if data.sources:
        return ", ".join(source.name for source in data.sources)
    names = [Path(text).name for text in data.texts]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _text_and_column(filled: FilledRun) -> str:
    """Name the training text, and for tables the column."""
    text, prepared = text_of(filled.config.data), filled.prepared
    surveys = {f" of {source.name}": source.prepared.survey for source in prepared.sources}
    columns = [
        f"{quoted(found.column)}{of_which}"
        for of_which, found in (surveys or {"": prepared.survey}).items()
        if found.rows and found.column
    ]
    plural = "s" if len(columns) > 1 else ""
    return f"{text} (column{plural} {', '.join(columns)})" if columns else text
