"""From a run folder with a config to a job, and through the loop: the same way for every task.

New and resumed runs take the same path: a run that has a checkpoint begins there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hairpin.checkpoints.manifest import Checkpoint
from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.load import to_tree, validate
from hairpin.config.settings import Config
from hairpin.data.tokenizers import Tokenizer, load_tokenizer
from hairpin.distributed.world import World, reporting_lost_process
from hairpin.machine.environment import describe_environment
from hairpin.machine.numerics import Numerics
from hairpin.machine.other_programs import yielding_to_other_programs
from hairpin.machine.out_of_memory import reporting_out_of_memory
from hairpin.machine.threads import computing_with, threads_of
from hairpin.machine.torch_settings import isolated
from hairpin.runs import events
from hairpin.runs.events import Event
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import NoRecord, Record, kept_bytes, start_bytes, truncate_record
from hairpin.runs.watcher import Watcher
from hairpin.system.access import is_there
from hairpin.system.allocator import keep_memory
from hairpin.system.files import new_folder
from hairpin.training.assembly import build_job, new_state
from hairpin.training.budget import Budget
from hairpin.training.checkpoint import changes_since, config_of, load_state, run_store
from hairpin.training.checks import require_disk, require_nothing_lost, require_parallel
from hairpin.training.job import Job
from hairpin.training.loop import train
from hairpin.training.signals import StopRequest
from hairpin.training.spread import Spread
from hairpin.training.state import TrainState
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
    world = world or World()
    with isolated(), reporting_out_of_memory(run.path):
        keep_memory()
        opening = _Opening(run, make_task, config, budget, watcher, world, restart)
        task, store, checkpoint, changes = opening.open()
        how = task.config.execution
        numerics = Numerics(how.device, how.precision)
        numerics.configure(deterministic=how.deterministic)
        state, length = _restored(task, checkpoint, world)
        if world.is_first:
            changes = (*changes, *opening.clean_up(task, store, checkpoint, state, length))
        for warning in (*changes, *task.warnings):
            watcher.notice(warning)
        stop = StopRequest(alone=world.size == 1)
        record = Record(run.metrics) if world.is_first else NoRecord()
        with computing_with(how.threads), record, store, stop.deferring():
            job = build_job(task, run, state, store, record, stop, watcher, world)
            if checkpoint:
                job.pace = None  # its length is in use already
            for event in _resumed(task, checkpoint, changes) if checkpoint else (task.plan(),):
                record.write(event)
                yield event
            with (
                numerics.undisturbed(),
                reporting_lost_process(),
                yielding_to_other_programs(how.device) as look,
            ):
                job.warm_up()
                for event in train(job):
                    look()
                    yield event
                yield from _memorisation(task, job, watcher)


@dataclass(frozen=True)
class _Opening:
    """The opening of a run: its config filled in, and the checkpoint that it resumes from found.

    Args:
        run, make_task, config, budget, watcher, world, restart: as in `train_run`.
    """

    run: RunDirectory
    make_task: TaskMaker
    config: Config | None
    budget: Budget | None
    watcher: Watcher
    world: World
    restart: bool

    def open(self) -> tuple[Task, CheckpointStore, Checkpoint | None, Sequence[str]]:
        """Return the task, the run's checkpoints, the one to resume from, and the changes since it.

        The first process fills in what the config leaves open, and writes it into the run once it
        is known to fit the checkpoint; the others take it from there.
        """
        run, world, own = self.run, self.world, list[Task]()

        def fill() -> dict[str, Any]:
            own.append(self._filled())
            return to_tree(own[0].config)

        tree = world.share(fill)
        config = own[0].config if own else validate(tree)
        facts = _facts(own[0]) if own else {}  # the process that writes manifests needs them
        store = run_store(run, config, facts, world)
        self.watcher.stage("verifying the checkpoint", 0, 0)
        checkpoint = store.newest(self.watcher.notice, self._begin_at_0)

        def write() -> Sequence[str]:
            changes = changes_since(checkpoint, config, facts, world.size) if checkpoint else ()
            # On resume, all of the checkpoint is read before anything is written.
            if not checkpoint or not is_there(run.tokenizer):
                _write_description(run, own[0], world)
            return changes

        changes = world.share(write)
        if own:
            return own[0], store, checkpoint, changes
        task = self.make_task(config, load_tokenizer(run.tokenizer), None, self.watcher)
        return task, store, checkpoint, changes

    def clean_up(
        self,
        task: Task,
        store: CheckpointStore,
        checkpoint: Checkpoint | None,
        state: TrainState,
        length: int,
    ) -> tuple[str, ...]:
        """Cut the run's files back to the state that it resumes from, whose record has `length`
        bytes; return a line if part of the record is missing.
        """
        run = self.run
        kept, gap = start_bytes(run.metrics), None
        if checkpoint:
            kept, gap = kept_bytes(run.metrics, length, checkpoint.step)
        run.remove_unfinished()
        if checkpoint:
            _write_description(run, task, self.world)
        if state.best:
            store.keep_as_best(state.best.update, self.watcher.notice)
        truncate_record(run.metrics, kept, run.discarded_metrics())
        return (gap,) if gap else ()

    def _filled(self) -> Task:
        """Return the task, with a config that is known to suit processes and disk."""
        run = self.run
        tokenizer = load_tokenizer(run.tokenizer) if is_there(run.tokenizer) else None
        asked = self.config or run.read_config()
        task = self.make_task(asked, tokenizer, self.budget, self.watcher)
        require_parallel(task.config, self.world.size)
        require_disk(run, task.config, is_new=tokenizer is None, restart=self.restart)
        if self.restart:
            run_store(run, task.config, {}).set_all_aside(self.watcher.notice)
        return task

    def _begin_at_0(self, damaged: Sequence[str]) -> None:
        """Announce that the run begins again, if that needs no request."""
        if not self.restart and (updates := require_nothing_lost(self.run, damaged)):
            self.watcher.notice(
                f"{self.run.path}: no checkpoint was saved yet, so it starts again at update 0; "
                f"the {updates:,} updates in its record are set aside"
            )


def _restored(task: Task, checkpoint: Checkpoint | None, world: World) -> tuple[TrainState, int]:
    """Return the state to train from, and the length of the record that belongs to it."""
    state = new_state(task, world, from_start=checkpoint is None)
    return state, world.together(lambda: load_state(checkpoint, state) if checkpoint else 0)


def _memorisation(task: Task, job: Job, watcher: Watcher) -> Iterator[Event]:
    """Yield the memorisation, if it is measured."""
    if not task.measure_memorisation:
        return
    watcher.stage("measuring memorisation", 0, 0)
    with job.state.spread.gathered() as model:
        if model is not None:
            whole = replace(job.state, spread=Spread(model))
            found = task.measure_memorisation(whole, lambda: job.stop.requested)
            if found:
                job.record.write(found)
                yield found


def _resumed(task: Task, checkpoint: Checkpoint, changes: Sequence[str]) -> Iterator[Event]:
    """Yield the events of a resume, and the new length, if it was changed since."""
    config, before = task.config, config_of(checkpoint)
    updates, planned = config.train.updates, before.train.updates
    assert updates and planned
    labels = config.finetune.labels or None
    yield events.Resume(checkpoint.step, time.time(), labels, updates, tuple(changes) or None)
    if updates != planned:
        added = config.schedule.extensions[len(before.schedule.extensions) :]
        yield events.Extend(checkpoint.step, planned, updates, added[-1].policy if added else None)


def _facts(task: Task) -> dict[str, str]:
    """Return the hashes that tie a checkpoint to its text and tokenizer."""
    assert task.config.data.hash
    return {"data_sha256": task.config.data.hash, "tokenizer_sha256": task.tokenizer.hash()}


def _write_description(run: RunDirectory, task: Task, world: World) -> None:
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
