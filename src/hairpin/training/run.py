"""From a run folder with a config to a job, and through the loop: the same way for every task.

A new run and one that goes on take it alike: a run that has a checkpoint begins there.
"""

import time
from collections.abc import Callable, Iterator

from hairpin.allocator import keep_memory
from hairpin.checkpoints.manifest import Checkpoint
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.checks import schedule_of
from hairpin.config.settings import Config
from hairpin.data.tokenizers import Tokenizer, load_tokenizer
from hairpin.errors import ConfigError
from hairpin.files import new_folder
from hairpin.model.plugged import training_loss
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.optim.scaling import LossScale
from hairpin.planning import choose
from hairpin.runs import events
from hairpin.runs.directory import RunDirectory
from hairpin.runs.events import Event
from hairpin.runs.metrics import Record, start_bytes, truncate_record
from hairpin.schedules import Schedule
from hairpin.training.budget import Budget, Pace
from hairpin.training.checkpoint import changes_since, config_of, load_state, run_store
from hairpin.training.compiler import compile_model
from hairpin.training.environment import describe_environment
from hairpin.training.evaluate import Evaluator
from hairpin.training.evidence import Examiner
from hairpin.training.incidents import Incidents
from hairpin.training.job import Job, Milestones
from hairpin.training.loop import train
from hairpin.training.numerics import Numerics
from hairpin.training.signals import StopRequest
from hairpin.training.state import TrainState
from hairpin.training.step import Stepper
from hairpin.training.task import Task
from hairpin.watch import Watcher

# Settles a config into a task: (config, the run's tokenizer if it has one, budget, watcher).
TaskMaker = Callable[[Config, Tokenizer | None, Budget | None, Watcher], Task]


def train_run(
    run: RunDirectory, make_task: TaskMaker, *, budget: Budget | None, watcher: Watcher
) -> Iterator[Event]:
    """Train the run to its end from where it is, yielding what happens.

    Args:
        run: a folder with a config, in which `None` means choose; the caller holds its lock.
        make_task: settles the config.
        budget: wall time; fills only what the config leaves open.
        watcher: told of preparation and notices.
    """
    keep_memory()
    run.remove_unfinished()
    tokenizer = load_tokenizer(run.tokenizer) if run.tokenizer.exists() else None
    task = make_task(run.read_config(), tokenizer, budget, watcher)
    config = task.config
    numerics = Numerics(config.execution.device, config.execution.precision)
    numerics.configure(deterministic=config.execution.deterministic)
    facts = _facts(task)
    store = run_store(run, config, facts)
    checkpoint = store.newest(watcher.notice)
    changes = changes_since(checkpoint, config, facts) if checkpoint else ()
    _write_what_it_is(run, task, is_new=tokenizer is None)
    state = new_state(task, from_start=checkpoint is None)
    kept_bytes = load_state(checkpoint, state) if checkpoint else start_bytes(run.metrics)
    if state.best:
        store.keep_as_best(state.best.update, watcher.notice)
    truncate_record(run.metrics, kept_bytes, run.discarded_metrics())
    for warning in (*changes, *task.warnings):
        watcher.notice(warning)
    stop = StopRequest()
    with Record(run.metrics) as record, store, stop.deferring():
        job = build_job(task, run, state, store, record, stop, watcher)
        if budget and task.corrected and not checkpoint:
            _keep_to(budget, job, task.corrected)
        for opening in _going_on(task, checkpoint) if checkpoint else (task.plan(),):
            record.write(opening)
            yield opening
        with numerics.undisturbed():
            yield from train(job)
        if task.measure_memorisation:
            found = task.measure_memorisation(state, lambda: stop.requested)
            if found:
                record.write(found)
                yield found


def new_state(task: Task, *, from_start: bool = True) -> TrainState:
    """The state before the first update; without `from_start`, one that is about to be loaded."""
    model = task.new_model()
    if task.load_start and from_start:
        task.load_start(model)
    config, how = task.config, task.config.execution
    model = model.to(how.device)
    optimizer = build_optimizer(model, config.optimizer)
    scaling = LossScale(how.device) if how.precision == "float16" else None
    return TrainState(model, optimizer, Guard(config.guard, how.device), scaling=scaling)


def build_job(
    task: Task,
    run: RunDirectory,
    state: TrainState,
    store: CheckpointStore,
    record: Record,
    stop: StopRequest,
    watcher: Watcher,
) -> Job:
    """Everything that the loop needs, from a task and a state."""
    config = task.config
    context, tokens = config.model.context, config.train.tokens_per_update
    assert context and tokens and config.execution.micro_batch
    numerics = Numerics(config.execution.device, config.execution.precision)
    if config.execution.compile == "on":
        compile_model(state.model, config)
    stepper = Stepper(
        state.model,
        state.optimizer,
        Clipper(config.clip.kind, config.clip.threshold),
        numerics,
        config.train.seed,
        config.execution.micro_batch,
        state.guard,
        lambda: stop.requested,
        state.scaling,
        training_loss(config.train.loss),
    )
    examiner = Examiner(state.model, numerics, task.batches, task.tokenizer.decode)
    evaluator = Evaluator(
        state.model, task.tally, numerics, config.execution.micro_batch, lambda: stop.requested
    )
    return Job(
        state=state,
        schedule=schedule_of(config),
        batches=task.batches,
        samples_per_update=tokens // context,
        stepper=stepper,
        incidents=Incidents(config.guard, examiner, watcher.notice),
        evaluator=evaluator,
        train_set=task.train_set,
        val_set=task.val_set,
        sample_writers=task.sample_writers(state.model, lambda: stop.requested),
        milestones=_milestones(config),
        run=run,
        config=config,
        store=store,
        record=record,
        stop=stop,
        keeps_start=task.load_start is not None or config.guard.rewinds,
    )


def _keep_to(budget: Budget, job: Job, corrected: Callable[[int], Config]) -> None:
    """Let the job correct its length while the schedule is free of it."""
    job.pace = Pace(budget, free_updates=job.schedule.settled, milestones=choose.MILESTONES)

    def correct(updates: int) -> tuple[Schedule, Milestones] | None:
        try:
            config = corrected(updates)
        except ConfigError:  # far slower than probed: better late than not at all
            return None
        schedule = schedule_of(config)
        if schedule.settled < job.state.update:
            return None  # rates that were used already would have been others
        job.run.write_config(config)
        job.config = config
        return schedule, _milestones(config)

    job.correct = correct


def _milestones(config: Config) -> Milestones:
    assert config.evaluate.every_updates and config.checkpoint.every_updates
    ends = tuple(extension.at for extension in config.schedule.extensions)
    return Milestones(config.evaluate.every_updates, config.checkpoint.every_updates, ends)


def _going_on(task: Task, checkpoint: Checkpoint) -> Iterator[Event]:
    """What is said where a run goes on; and its new length, if that was changed since."""
    config, before = task.config, config_of(checkpoint)
    updates, planned = config.train.updates, before.train.updates
    assert updates and planned
    labels = config.finetune.labels or None
    yield events.Resume(checkpoint.step, time.time(), labels, updates)
    if updates != planned:
        added = config.schedule.extensions[len(before.schedule.extensions) :]
        yield events.Extend(checkpoint.step, planned, updates, added[-1].policy if added else None)


def _facts(task: Task) -> dict[str, str]:
    """What a checkpoint belongs to."""
    assert task.config.data.hash
    return {"data_sha256": task.config.data.hash, "tokenizer_sha256": task.tokenizer.hash()}


def _write_what_it_is(run: RunDirectory, task: Task, *, is_new: bool) -> None:
    """The settled config, the tokenizer and the environment. The config comes before the
    tokenizer: a run that has a tokenizer is settled.
    """
    run.write_config(task.config)
    if is_new:
        with new_folder(run.tokenizer) as folder:
            task.tokenizer.save(folder)
    run.write_environment(describe_environment(task.config.execution.device))
