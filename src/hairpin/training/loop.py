"""The training loop.

It is a generator of events: whoever drains it decides what is shown. The verbs are `Job`'s.
"""

from collections.abc import Iterator

from hairpin.runs.events import Event
from hairpin.training.job import Job
from hairpin.training.step import StepResult


def train(job: Job) -> Iterator[Event]:
    """Train from where the job's state is to the end of its schedule.

    Raises:
        NonFiniteError: a loss or gradient was not finite; weights are as before that update.
        Interrupted: a signal asked for the end; a checkpoint was saved.
    """
    state = job.state
    if state.update == 0:
        yield from job.evaluate()
        yield from job.sample()

    unread: StepResult | None = None
    stopping = job.stop.requested
    while state.update < job.updates and not stopping:
        launched = job.step()
        if unread:  # one update behind, so that the device never waits for the host
            yield job.read(unread)
        unread = launched

        stopping = job.stop.requested
        done = state.update == job.updates
        evaluate = done or due(state.update, job.evaluate_every)
        save = done or due(state.update, job.checkpoint_every)
        if evaluate or save or stopping or job.correction_due():
            yield job.read(unread)
            unread = None
        if job.correction_due():
            yield from job.correct_length()
        if evaluate:
            yield from job.evaluate()
            yield from job.sample()
        if save or stopping:
            yield job.save()

    if state.update < job.updates:
        raise job.interrupted()


def due(update: int, every: int) -> bool:
    """Whether something done every so many updates is done after this many."""
    return update % every == 0
