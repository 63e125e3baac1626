"""A job: everything that training needs, and the steps that the loop calls."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from hairpin.checkpoints.store import CheckpointStore
from hairpin.config.checks import schedule_of
from hairpin.config.load import to_tree, validate
from hairpin.config.settings import Config
from hairpin.data.batches import IGNORED
from hairpin.distributed.world import World
from hairpin.errors import ConfigError, Interrupted
from hairpin.model.gpt import GPT
from hairpin.runs import events
from hairpin.runs.events import Event
from hairpin.runs.folder import RunDirectory
from hairpin.runs.record import Record
from hairpin.schedules.curves import Schedule
from hairpin.system.shell import command
from hairpin.training.budget import Pace
from hairpin.training.checkpoint import snapshot
from hairpin.training.evaluate import EvaluationSet, Evaluator, Measured, by_source
from hairpin.training.incidents import Incidents
from hairpin.training.ratios import sample_weights
from hairpin.training.signals import StopRequest
from hairpin.training.slowdown import Slowdown
from hairpin.training.state import Best, TrainState
from hairpin.training.step import Stepper, StepResult, StoppedError
from hairpin.training.task import Samples, WriteSample


@dataclass
class Job:
    """One training, ready to go.

    Args:
        state: the state so far.
        schedule: update → learning rate; its length is the run's.
        batches: position → samples.
        samples_per_update: sequences in one update.
        stepper: takes the single step.
        incidents: handles updates that went wrong.
        evaluator: measures a loss on a fixed set.
        train_set, val_set: the sets it measures.
        sample_writers: takes the whole model; each of them gives (prompt, continuation).
        run: its folder.
        config: its settings.
        store: its checkpoints.
        record: its metrics.jsonl.
        stop: the request to stop, if any.
        world: the processes that do the same job together.
        saves_start: True if the weights before update 0 are saved: those of a trained model may
            stay the best, and a rewind may go back to them.
        slowdown: receives the speed of updates, on a CPU.
        pace: the time budget that may still correct the run's length.
    """

    state: TrainState
    schedule: Schedule
    batches: Samples
    samples_per_update: int
    stepper: Stepper
    incidents: Incidents
    evaluator: Evaluator
    train_set: EvaluationSet
    val_set: EvaluationSet
    sample_writers: Callable[[GPT], Sequence[WriteSample]]
    run: RunDirectory
    config: Config
    store: CheckpointStore
    record: Record
    stop: StopRequest
    world: World = field(default_factory=World)
    saves_start: bool = False
    slowdown: Slowdown | None = None
    pace: Pace | None = None
    _correcting: bool = False
    _saved_time: float = field(default_factory=time.monotonic)
    _is_save_overdue: bool = False

    @property
    def updates(self) -> int:
        """The length of the run."""
        return self.schedule.updates

    def step(self) -> StepResult | None:
        """Launch the next update; its numbers are read later. None: a stop was requested before
        its last micro-step, and it is as if it had not begun.

        Raises:
            HairpinError: the checkpoint being saved in the background failed.
        """
        self.store.check()
        state = self.state
        batch = self._own_batch()
        tokens = self._agree(int((batch[1] != IGNORED).sum()))  # they are on the host
        weights = sample_weights(state.spread) if state.evaluated == state.update else None
        try:
            result = self.stepper.step(
                batch,
                update=state.update,
                position=state.position,
                samples=self.samples_per_update,
                tokens=tokens,
                lr=self.schedule(state.update),
            )
        except StoppedError:
            self._correcting = False
            return None
        if weights:
            ratios = weights.compare(state.spread, state.spread.total)
            result = replace(result, read_ratios=ratios)
        state.update += 1
        state.position += result.samples
        state.tokens += result.tokens
        return result

    def warm_up(self) -> None:
        """Run the warm-up that several processes need before their first update."""
        if self.world.size > 1:
            self.stepper.warm_up(self._own_batch())

    def _own_batch(self) -> tuple[Tensor, Tensor]:
        """Return this process's samples of the update; all have the same number, and surplus ones
        have no targets.
        """
        own = self.world.rows(self.samples_per_update)
        short = -(-self.samples_per_update // self.world.size) - len(own)
        if not short:
            return self.batches.at(self.state.position + own.start, len(own))
        inputs, targets = self.batches.at(self.state.position + own.start, max(1, len(own)))
        rows = [*range(len(own)), *[0] * short]
        targets = targets[rows]
        targets[len(own) :] = IGNORED
        return inputs[rows], targets

    def _agree(self, tokens: int) -> int:
        """Return the target tokens of the update in all processes, and agree with them on stopping,
        correcting the length, and saving because it is time.
        """
        due = self.pace is not None and self.pace.correction_due(self.state.update + 1)
        every_seconds = self.config.checkpoint.every_seconds
        is_late = 0 < every_seconds <= time.monotonic() - self._saved_time
        tokens, due_count, late_count, *noted = self.world.totals(
            tokens, int(due), int(is_late), *self.stop.noted()
        )
        self._correcting, self._is_save_overdue = due_count > 0, late_count > 0
        self.stop.agree(noted)
        return tokens

    def read(self, result: StepResult, following: StepResult | None = None) -> Iterator[Event]:
        """Wait for an update's numbers and record them, with its update ratios, if measured, and
        its incidents.

        Args:
            result: the update's.
            following: the update launched after it, if any: its launch ends this one's time.

        Raises:
            NonFiniteError, SpikeError: the guard stopped it.
        """
        numbers = result.read()
        seconds = (following.launched if following else time.perf_counter()) - result.launched
        if self.pace:
            self.pace.took(seconds)
        if self.slowdown:
            self.slowdown.took(result.tokens / seconds)
        event = events.Update(
            update=result.update,
            lr=result.lr,
            loss=numbers.loss,
            grad_norm=numbers.grad_norm,
            clipped=numbers.clipped,
            tokens=result.tokens,
            tokens_per_second=result.tokens / seconds,
            skipped=(numbers.skip and not numbers.overflow) or None,
            overflow=numbers.overflow or None,
            loss_scale=numbers.loss_scale,
            leader=numbers.leader,
            leader_share=numbers.leader_share,
        )
        self.record.write(event)
        yield event
        if result.read_ratios and not numbers.skip:
            ratios = events.Ratios(result.update, result.lr, result.read_ratios())
            self.record.write(ratios)
            yield ratios
        incident = self.incidents.look_at(result, numbers, self.state.rewinds)
        if incident:
            self.record.write(incident)
            yield incident

    @property
    def must_rewind(self) -> bool:
        """True if an update that was read requires a rewind."""
        return self.incidents.bad is not None

    def rewind(self) -> Iterator[Event]:
        """Go back to the last checkpoint, and continue with samples not seen yet."""
        event = self.incidents.rewind(self.state, self.run, self.store, self.record)
        self.record.write(event)
        yield event

    def evaluation_due(self) -> bool:
        """True if an evaluation is due and was not made: at the start, at the end, where the run
        ended before it was extended, and at the set interval between them.
        """
        update = self.state.update
        extensions = (extension.at for extension in self.config.schedule.extensions)
        is_end = update in (0, self.updates, *extensions)
        belongs = is_end or _is_due(update, self.config.evaluate.every_updates)
        return belongs and self.state.evaluated != update

    def checkpoint_due(self) -> bool:
        """True if a save is due: for a new best, or when the last one is long ago."""
        update = self.state.update
        belongs = update == self.updates or _is_due(update, self.config.checkpoint.every_updates)
        return belongs or self.state.is_best or self._is_save_overdue

    def milestone(self) -> Iterator[Event]:
        """Evaluate and sample."""
        start_time = time.perf_counter()
        yield from self.evaluate()
        yield from self.sample()
        if self.pace:
            self.pace.paused(time.perf_counter() - start_time, milestones=1)

    def evaluate(self) -> Iterator[Event]:
        """Measure training and validation loss; yield nothing if a stop was requested."""
        train = self.evaluator.measure(self.train_set)
        val = self.evaluator.measure(self.val_set)
        if train and val:
            yield self._evaluated(train, val)

    def sample(self) -> Iterator[Event]:
        """Generate samples; of several processes the first one does."""
        if not self.config.evaluate.sample_tokens:
            return
        with self.state.spread.gathered() as model:
            for write in self.sample_writers(model) if model else ():
                if self.stop.requested:
                    return
                prompt, text = write()
                if not self.stop.requested:  # else it was cut short
                    event = events.Sample(self.state.update, prompt, text)
                    self.record.write(event)
                    yield event

    def save(self) -> Event:
        """Begin to save a checkpoint; training may continue meanwhile. Its event belongs to the
        history that the checkpoint names, and is set aside with it if a crash comes first.
        """
        state, start_time = self.state, time.perf_counter()
        event = events.Checkpoint(state.update, state.is_best)
        self.record.write(event)
        what = snapshot(state, self.config, self.record.sync())
        self.store.save(what, is_best=state.is_best)
        self._saved_time, self._is_save_overdue = time.monotonic(), False
        if self.pace:
            self.pace.paused(time.perf_counter() - start_time, milestones=0)
        return event

    def finish(self) -> None:
        """Wait until everything saved is on disk."""
        self.store.finish()

    def correction_due(self) -> bool:
        """True if the length should be corrected now to meet the time budget."""
        return self._correcting

    def correct_length(self) -> Iterator[Event]:
        """Set the number of updates to that which the measured speed allows: once, while no
        learning rate used so far depends on it.
        """
        planned, config = self.updates, self.world.share(self._corrected)
        self.pace, self._correcting = None, False
        if config:
            self.config = validate(config)
            self.schedule = schedule_of(self.config)
            event = events.Correction(self.state.update, planned, self.updates)
            self.record.write(event)
            yield event

    def _corrected(self) -> dict[str, Any] | None:
        """Return the settings with the length that the time budget allows, after writing them into
        the run; None: it stays as planned.
        """
        assert self.pace
        updates = self.pace.updates_that_fit(self.state.update)
        if updates == self.updates:
            return None
        try:
            config = self.pace.config_for(updates)
        except ConfigError:  # far slower than probed: better late than not at all
            return None
        if schedule_of(config).length_independent_updates < self.state.update:
            return None  # rates that were used already would differ
        self.run.write_config(config)
        return to_tree(config)

    def interrupted(self) -> Interrupted:
        """Return the error that ends a run on a signal."""
        path = self.run.path
        return Interrupted(
            f"stopped after update {self.state.update} of {self.updates}; resume with "
            f"`{command('resume', path)}`",
            self.stop.signal_number or 2,
        )

    def _evaluated(self, train: Measured, val: Measured) -> Event:
        state = self.state
        if math.isfinite(val.loss) and (state.best is None or val.loss < state.best.val_loss):
            state.best = Best(state.update, val.loss)
        state.evaluated = state.update
        event = events.Evaluation(
            update=state.update,
            tokens=state.tokens,
            train_loss=train.loss,
            val_loss=val.loss,
            val_bits_per_byte=val.bits_per_byte,
            train_accuracy=train.accuracy,
            val_accuracy=val.accuracy,
            val_confusion=val.confusion,
            sources=by_source(train, val),
        )
        self.record.write(event)
        return event


def _is_due(update: int, every: int | None) -> bool:
    """Return True if something done every `every` updates is due after `update`."""
    assert every
    return update % every == 0
