"""Pretraining: from a run folder with a config to a job, and through the loop.

A new run and one that goes on take the same way: a run that has a checkpoint begins there.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from hairpin.config.checks import schedule_of
from hairpin.config.settings import Config, Data
from hairpin.data.batches import Batches, Windows
from hairpin.data.tokenizers import load_tokenizer
from hairpin.errors import ConfigError
from hairpin.model.generate import Sampling
from hairpin.model.gpt import GPT
from hairpin.optim.gradients import Clipper
from hairpin.optim.optimizers import build_optimizer
from hairpin.planning import count_parameters
from hairpin.runs import events
from hairpin.runs.directory import RunDirectory
from hairpin.runs.events import Event
from hairpin.runs.metrics import Record, start_bytes, truncate_record
from hairpin.schedules import CURVES, Schedule
from hairpin.training import choose
from hairpin.training.budget import Budget, Pace
from hairpin.training.checkpoint import CheckpointStore, load_state
from hairpin.training.environment import describe_environment
from hairpin.training.evaluate import Evaluator
from hairpin.training.job import Job, Milestones
from hairpin.training.loop import train
from hairpin.training.numerics import Numerics
from hairpin.training.samples import SampleWriter, prompt_from
from hairpin.training.settle import Settled, memorisation_warning, settle
from hairpin.training.signals import StopRequest
from hairpin.training.state import TrainState
from hairpin.training.step import Stepper
from hairpin.watch import Watcher


def pretrain(run: RunDirectory, *, budget: Budget | None, watcher: Watcher) -> Iterator[Event]:
    """Train the run to its end from where it is, yielding what happens.

    Args:
        run: a folder with a config, in which `None` means choose.
        budget: wall time; fills only what the config leaves open.
        watcher: told of preparation and notices.
    """
    tokenizer = load_tokenizer(run.tokenizer) if run.tokenizer.exists() else None
    settled = settle(run.read_config(), budget, watcher, tokenizer)
    config = settled.config
    run.write_config(config)
    if tokenizer is None:
        settled.prepared.tokenizer.save(run.tokenizer)
    run.write_environment(describe_environment(config.execution.device))
    Numerics(config.execution.device, config.execution.precision).configure(
        deterministic=config.execution.deterministic
    )
    state = new_state(settled)
    store = CheckpointStore(run, config.checkpoint.keep, _identity(settled))
    checkpoint = store.newest(watcher.notice)
    kept_bytes = load_state(checkpoint, state) if checkpoint else start_bytes(run.metrics)
    truncate_record(run.metrics, kept_bytes, run.discarded_metrics())
    if warning := memorisation_warning(settled):
        watcher.notice(warning)
    stop = StopRequest()
    with Record(run.metrics) as record, stop.deferring():
        job = build_job(settled, state, store, record, stop)
        if budget and settled.without_length and not checkpoint:
            _keep_to(budget, job, settled)
        opening = _resumed(job) if checkpoint else _plan(settled)
        record.write(opening)
        yield opening
        yield from train(job)


def new_state(settled: Settled) -> TrainState:
    """The state before the first update."""
    config = settled.config
    model = GPT(settled.shape, config.train.seed).to(config.execution.device)
    return TrainState(model, build_optimizer(model, config.optimizer))


def build_job(
    settled: Settled, state: TrainState, store: CheckpointStore, record: Record, stop: StopRequest
) -> Job:
    """Everything that the loop needs, from a settled config and a state."""
    config, prepared, shape = settled.config, settled.prepared, settled.shape
    assert config.train.tokens_per_update and config.execution.micro_batch
    numerics = Numerics(config.execution.device, config.execution.precision)
    stepper = Stepper(
        state.model,
        state.optimizer,
        Clipper(config.clip.kind, config.clip.threshold),
        numerics,
        config.train.seed,
        config.execution.micro_batch,
        halted=torch.zeros((), dtype=torch.bool, device=numerics.device),
    )
    evaluator = Evaluator(
        state.model,
        prepared.tokenizer.token_bytes(),
        numerics,
        config.execution.micro_batch,
        lambda: stop.requested,
    )
    return Job(
        state=state,
        schedule=schedule_of(config),
        batches=Batches(prepared.train, shape.context, config.train.seed),
        samples_per_update=config.train.tokens_per_update // shape.context,
        stepper=stepper,
        evaluator=evaluator,
        train_windows=Windows(prepared.train, shape.context, config.evaluate.train_tokens),
        val_windows=Windows(prepared.val, shape.context, config.evaluate.tokens),
        write_sample=_sample_writer(settled, state, stop),
        milestones=_milestones(config),
        store=store,
        record=record,
        stop=stop,
    )


def _sample_writer(settled: Settled, state: TrainState, stop: StopRequest) -> SampleWriter | None:
    config, prepared = settled.config, settled.prepared
    asked = config.evaluate
    if asked.sample_tokens == 0:
        return None
    prompt = asked.sample_prompt
    return SampleWriter(
        state.model,
        prepared.tokenizer,
        prompt_from(prepared.val, prepared.tokenizer) if prompt is None else prompt,
        asked.sample_tokens,
        Sampling(asked.temperature, asked.top_k),
        config.train.seed,
        lambda: stop.requested,
    )


def _keep_to(budget: Budget, job: Job, settled: Settled) -> None:
    """Let the job correct its length while the schedule is free of it."""
    free = CURVES[job.schedule.kind].settled(job.schedule)
    job.pace = Pace(budget, free_updates=free, milestones=choose.MILESTONES)

    def correct(updates: int) -> tuple[Schedule, Milestones] | None:
        try:
            config = settled.corrected(updates)
        except ConfigError:  # far slower than probed: better late than not at all
            return None
        schedule = schedule_of(config)
        if CURVES[schedule.kind].settled(schedule) < job.state.update:
            return None  # rates that were used already would have been others
        job.store.run.write_config(config)
        return schedule, _milestones(config)

    job.correct = correct


def _milestones(config: Config) -> Milestones:
    assert config.evaluate.every_updates and config.checkpoint.every_updates
    return Milestones(config.evaluate.every_updates, config.checkpoint.every_updates)


def _plan(settled: Settled) -> events.Plan:
    config = settled.config
    assert config.train.updates and config.train.tokens_per_update
    seconds = config.train.updates * settled.seconds_per_update
    return events.Plan(
        text=_text_of(config.data),
        parameters=count_parameters(settled.shape).total,
        updates=config.train.updates,
        warmup=schedule_of(config).warmup,
        tokens_per_update=config.train.tokens_per_update,
        train_tokens=len(settled.prepared.train),
        val_tokens=len(settled.prepared.val),
        epochs=settled.epochs,
        seconds=seconds,
        ends=time.time() + seconds,
    )


def _text_of(data: Data) -> str:
    """What is trained on, in a few words."""
    if data.corpus:
        return data.corpus
    names = [Path(text).name for text in data.texts]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _resumed(job: Job) -> events.Resume:
    return events.Resume(job.state.update, time.time())


def _identity(settled: Settled) -> dict[str, str]:
    """What a checkpoint belongs to."""
    assert settled.config.data.hash
    return {
        "data_sha256": settled.config.data.hash,
        "tokenizer_sha256": settled.prepared.tokenizer.hash(),
    }
