"""From a run folder with a config to a job, and through the loop: the same way for every task.

New and resumed runs take the same path: a run that has a checkpoint begins there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from hairpin.checkpoints.manifest import Checkpoint
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.checks import schedule_of
from hairpin.config.load import to_tree, validate
from hairpin.config.settings import Config
from hairpin.data.tokenizers import Tokenizer, load_tokenizer
from hairpin.distributed.world import World, noticing_losses
from hairpin.errors import ConfigError
from hairpin.machine.environment import describe_environment
from hairpin.machine.memory import noticing_shortage
from hairpin.machine.neighbours import minding_neighbours
from hairpin.machine.numerics import Numerics
from hairpin.machine.threads import computing_with, threads_of
from hairpin.machine.torch_settings import kept_out
from hairpin.planning import choose
from hairpin.plugins.registry import BUILT_IN, KEYS
from hairpin.runs import events
from hairpin.runs.events import Event
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import NoRecord, Record, kept_bytes, start_bytes, truncate_record
from hairpin.runs.watcher import Watcher
from hairpin.system.access import is_there
from hairpin.system.allocator import keep_memory
from hairpin.system.files import new_folder
from hairpin.training.assembly import build_job, new_state
from hairpin.training.beginning import require_disk, require_nothing_lost
from hairpin.training.budget import Budget, Pace
from hairpin.training.checkpoint import changes_since, config_of, load_state, run_store
from hairpin.training.job import Job
from hairpin.training.loop import train
from hairpin.training.signals import StopRequest
from hairpin.training.task import Task

# Fills in a config and makes a task: (config, the run's tokenizer if it has one, budget, watcher).
TaskMaker = Callable[[Config, Tokenizer | None, Budget | None, Watcher], Task]


def train_run(
    run: RunDirectory,
    make_task: TaskMaker,
    *,
    config: Config | None = None,
    budget: Budget | None,
    watcher: Watcher,
    world: World | None = None,
    restart: bool = False,
) -> Iterator[Event]:
    """Train the run from its current state to its end, yielding events.

    Args:
        run: a folder with a config, in which `None` means choose; the caller holds its lock.
        make_task: fills in the config.
        config: used instead of the run's own, and written to it once it is known to fit.
        budget: wall time; fills only settings that the config leaves open.
        watcher: receives preparation events and notices.
        world: the processes that train it together; the first one fills in, and writes.
        restart: True to begin at update 0, ignoring saved state.

    Raises:
        HairpinError: it did not finish; a line gives the reason, and saved files are intact.
    """
    with kept_out(), noticing_shortage(run.path):
        yield from _train_run(run, make_task, config, budget, watcher, world or World(), restart)


def _train_run(
    run: RunDirectory,
    make_task: TaskMaker,
    asked: Config | None,
    budget: Budget | None,
    watcher: Watcher,
    world: World,
    restart: bool,
) -> Iterator[Event]:
    keep_memory()
    task, store, checkpoint, changes = _begin(
        run, make_task, asked, budget, watcher, world, restart
    )
    config = task.config
    numerics = Numerics(config.execution.device, config.execution.precision)
    numerics.configure(deterministic=config.execution.deterministic)
    state = new_state(task, world, from_start=checkpoint is None)
    length = world.together(lambda: load_state(checkpoint, state) if checkpoint else 0)
    if world.is_first:
        kept, gap = _kept_of_record(run, checkpoint, length)
        changes = (*changes, *([gap] if gap else []))
        run.remove_unfinished()
        if checkpoint:
            _write_what_it_is(run, task, world)
        if state.best:
            store.keep_as_best(state.best.update, watcher.notice)
        truncate_record(run.metrics, kept, run.discarded_metrics())
    for warning in (*changes, *task.warnings):
        watcher.notice(warning)
    stop = StopRequest(alone=world.size == 1)
    record = Record(run.metrics) if world.is_first else NoRecord()
    with computing_with(config.execution.threads), record, store, stop.deferring():
        job = build_job(task, run, state, store, record, stop, watcher, world)
        if budget and task.corrected and not checkpoint:
            _keep_to(budget, job, task.corrected)
        for opening in _going_on(task, checkpoint, changes) if checkpoint else (task.plan(),):
            record.write(opening)
            yield opening
        minding = minding_neighbours(config.execution.device)
        with numerics.undisturbed(), noticing_losses(), minding as look:
            job.warm_up()
            for event in train(job):
                look()
                yield event
            yield from _memorised(task, job, watcher)


def _begin(
    run: RunDirectory,
    make_task: TaskMaker,
    asked: Config | None,
    budget: Budget | None,
    watcher: Watcher,
    world: World,
    restart: bool,
) -> tuple[Task, CheckpointStore, Checkpoint | None, Sequence[str]]:
    """Return the task, the run's checkpoints, the one to resume from, and the changes since it.

    The first process fills in what the config leaves open, and writes it into the run once it is
    known to fit the checkpoint; the others take it from there.
    """
    own: list[Task] = []

    def settle() -> dict[str, Any]:
        tokenizer = load_tokenizer(run.tokenizer) if is_there(run.tokenizer) else None
        own.append(make_task(asked or run.read_config(), tokenizer, budget, watcher))
        _require_parallel(own[0].config, world)
        require_disk(run, own[0].config, is_new=tokenizer is None, restart=restart)
        if restart:
            run_store(run, own[0].config, {}).set_all_aside(watcher.notice)
        return to_tree(own[0].config)

    tree = world.share(settle)
    config = own[0].config if own else validate(tree)
    facts = _facts(own[0]) if own else {}  # the process that writes manifests needs them
    store = run_store(run, config, facts, world)
    watcher.stage("verifying the checkpoint", 0, 0)
    checkpoint = store.newest(watcher.notice, partial(_begin_at_0, run, watcher, restart))

    def write() -> Sequence[str]:
        changes = changes_since(checkpoint, config, facts, world.size) if checkpoint else ()
        # On resume, all of the checkpoint is read before anything is written.
        if not checkpoint or not is_there(run.tokenizer):
            _write_what_it_is(run, own[0], world)
        return changes

    changes = world.share(write)
    task = own[0] if own else make_task(config, load_tokenizer(run.tokenizer), None, watcher)
    return task, store, checkpoint, changes


def _begin_at_0(run: RunDirectory, watcher: Watcher, restart: bool, damaged: Sequence[str]) -> None:
    """Announce that the run begins again, if that needs no request."""
    if not restart and (updates := require_nothing_lost(run, damaged)):
        watcher.notice(
            f"{run.path}: no checkpoint was saved yet, so it begins again at update 0; the "
            f"{updates:,} updates of its record are set aside"
        )


def _kept_of_record(
    run: RunDirectory, checkpoint: Checkpoint | None, length: int
) -> tuple[int, str | None]:
    """Return the length of the record to keep, and the problem with it, if any."""
    if checkpoint is None:
        return start_bytes(run.metrics), None
    return kept_bytes(run.metrics, length, checkpoint.step)


def _memorised(task: Task, job: Job, watcher: Watcher) -> Iterator[Event]:
    """Yield the memorisation, if it is measured."""
    if not task.measure_memorisation:
        return
    watcher.stage("measuring memorisation", 0, 0)
    with job.state.spread.gathered() as model:
        if model is not None:
            whole = replace(job.state, model=model)
            found = task.measure_memorisation(whole, lambda: job.stop.requested)
            if found:
                job.record.write(found)
                yield found


def _keep_to(budget: Budget, job: Job, corrected: Callable[[int], Config]) -> None:
    """Let the job correct its length while the schedule is free of it."""
    job.pace = Pace(budget, free_updates=job.schedule.settled, milestones=choose.MILESTONES)

    def correct(updates: int) -> Config | None:
        try:
            config = corrected(updates)
        except ConfigError:  # far slower than probed: better late than not at all
            return None
        if schedule_of(config).settled < job.state.update:
            return None  # rates that were used already would differ
        job.run.write_config(config)
        return config

    job.correct = correct


def _require_parallel(config: Config, world: World) -> None:
    """Check that the config supports the number of processes.

    Raises:
        ConfigError: it does not.
    """
    how, problems = config.execution, []
    if world.size == 1:
        return
    if how.device == "mps":
        problems.append("execution.device: mps has one process; take cpu, or a machine with CUDA")
    if how.parallel == "fsdp" and config.finetune.kind == "classify":
        problems.append("execution.parallel: fsdp does not train classifiers; take ddp")
    if config.train.loss not in BUILT_IN["loss"]:
        problems.append(f"train.loss: the plugin's {config.train.loss} is for one process")
    if how.parallel == "fsdp":
        for kind, name in (
            ("optimizer", config.optimizer.kind),
            ("model", config.model.architecture),
        ):
            if name not in BUILT_IN[kind]:
                problems.append(f"{KEYS[kind]}: fsdp does not shard the plugin's {name}; take ddp")
    if problems:
        raise ConfigError(problems)


def _going_on(task: Task, checkpoint: Checkpoint, changes: Sequence[str]) -> Iterator[Event]:
    """Yield the events of a resume, and the new length, if it was changed since."""
    config, before = task.config, config_of(checkpoint)
    updates, planned = config.train.updates, before.train.updates
    assert updates and planned
    labels = config.finetune.labels or None
    said = tuple(changes) or None
    yield events.Resume(checkpoint.step, time.time(), labels, updates, said)
    if updates != planned:
        added = config.schedule.extensions[len(before.schedule.extensions) :]
        yield events.Extend(checkpoint.step, planned, updates, added[-1].policy if added else None)


def _facts(task: Task) -> dict[str, str]:
    """Return the hashes that tie a checkpoint to its text and tokenizer."""
    assert task.config.data.hash
    return {"data_sha256": task.config.data.hash, "tokenizer_sha256": task.tokenizer.hash()}


def _write_what_it_is(run: RunDirectory, task: Task, world: World) -> None:
    """Write the filled-in config, the tokenizer and the environment. The config comes before the
    tokenizer: a run with a tokenizer has a complete config.
    """
    run.write_config(task.config)
    if not is_there(run.tokenizer):
        with new_folder(run.tokenizer) as folder:
            task.tokenizer.save(folder)
    config = task.config
    run.write_environment(
        describe_environment(config.execution.device, world.size, threads_of(config))
    )
