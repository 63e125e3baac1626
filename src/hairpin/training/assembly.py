"""Assembly of a state, a stepper and a job from a config and a task: all that the loop needs."""

from collections.abc import Callable
from contextlib import nullcontext

import torch

from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.checks import schedule_of
from hairpin.config.settings import Config
from hairpin.distributed.world import World
from hairpin.machine.compiler import compile_model
from hairpin.machine.numerics import Numerics
from hairpin.model.plugged import training_loss
from hairpin.optim.gradients import Clipper
from hairpin.optim.guard import Guard
from hairpin.optim.optimizers import build_optimizer
from hairpin.optim.scaling import LossScale
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import Record
from hairpin.runs.watcher import Watcher
from hairpin.training.evaluate import Evaluator
from hairpin.training.incidents import Examiner, Incidents
from hairpin.training.job import Job
from hairpin.training.signals import StopRequest
from hairpin.training.slowdown import Slowdown
from hairpin.training.spread import Spread, spread_model
from hairpin.training.state import TrainState
from hairpin.training.step import Stepper
from hairpin.training.task import Task


def new_state(task: Task, world: World | None = None, *, from_start: bool = True) -> TrainState:
    """Return the state before the first update; without `from_start`, one to load into."""
    config, how, world = task.config, task.config.execution, world or World()
    sharded = world.size > 1 and how.parallel == "fsdp"
    # No process has room for the whole of a sharded model.
    with torch.device("meta") if sharded else nullcontext():
        model = task.new_model()
    if not sharded:
        model = model.to(how.device)
    model.recomputes = how.activation_checkpointing
    spread = spread_model(model, world, how.parallel, Numerics(how.device, how.precision))
    if task.load_start and from_start:
        task.load_start(spread)
    return state_of(config, spread)


def state_of(config: Config, spread: Spread) -> TrainState:
    """Return the state of a model before its first update, by the config's optimizer and guard."""
    how = config.execution
    return TrainState(
        spread,
        build_optimizer(spread, config.optimizer, spread.shards, precision=how.precision),
        Guard(config.guard, how.device),
        scaling=LossScale(how.device) if how.precision == "float16" else None,
    )


def stepper_of(
    config: Config,
    state: TrainState,
    stopped: Callable[[], bool] = lambda: False,
    world: World | None = None,
) -> Stepper:
    """Return what takes the single step with a state, by the config.

    Args:
        config: with a micro-batch.
        state: of training.
        stopped: polled before each micro-step; once it is true the update is abandoned.
        world: the processes that take the step together.
    """
    how = config.execution
    assert how.micro_batch
    return Stepper(
        state.spread,
        state.optimizer,
        Clipper(config.clip.kind, config.clip.threshold),
        Numerics(how.device, how.precision, keeps_casts=state.spread.shards is None),
        config.train.seed,
        how.micro_batch,
        state.guard,
        stopped,
        state.scaling,
        world or World(),
        training_loss(config.train.loss),
    )


def build_job(
    task: Task,
    run: RunDirectory,
    state: TrainState,
    store: CheckpointStore,
    record: Record,
    stop: StopRequest,
    watcher: Watcher,
    world: World | None = None,
) -> Job:
    """Build everything that the loop needs, from a task and a state."""
    config, world = task.config, world or World()
    how, context, tokens = config.execution, config.model.context, config.train.tokens_per_update
    assert context and tokens
    if how.compile == "on":
        compile_model(state.model, config)
    stepper = stepper_of(config, state, lambda: stop.requested, world)
    numerics = stepper.numerics
    examiner = Examiner(state.model, numerics, task.batches, task.tokenizer.decode)
    evaluator = Evaluator(
        state.model, task.tally, numerics, stepper.micro_batch, lambda: stop.requested, world,
        lambda: watcher.stage("evaluating", 0, 0),
    )  # fmt: skip
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
        sample_writers=lambda model: task.sample_writers(model, lambda: stop.requested),
        run=run,
        config=config,
        store=store,
        record=record,
        stop=stop,
        world=world,
        saves_start=task.load_start is not None or config.guard.rewinds,
        slowdown=_slowdown(task, watcher) if how.device == "cpu" else None,
        pace=task.pace,
    )


def _slowdown(task: Task, watcher: Watcher) -> Slowdown:
    plan = task.plan()
    return Slowdown(watcher.notice, plan.tokens_per_update * plan.updates / max(plan.seconds, 1e-9))
