"""The training loop.

It is a generator of events: its consumer decides what is shown. The steps are `Job`'s.
"""

from collections.abc import Iterator

from hairpin.runs.events import Event
from hairpin.training.job import Job
from hairpin.training.step import StepResult


def train(job: Job) -> Iterator[Event]:
    """Train from the job's state to the end of its schedule.

    Raises:
        NonFiniteError, SpikeError: the guard stopped an update; weights are as before it.
        Interrupted: a signal asked for the end; a checkpoint was saved.
        HairpinError: a checkpoint could not be saved; those before it are intact.
    """
    state = job.state
    unread: StepResult | None = None
    if job.evaluation_due():  # before update 0, or where a stop prevented it
        yield from job.milestone()
        if state.update > 0 or (job.saves_start and state.is_best):
            yield job.save()

    stopping = job.stop.requested
    while state.update < job.updates and not stopping:
        launched = job.step()
        if unread:  # one update behind, so that the device never waits for the host
            yield from job.read(unread, launched)
        unread = launched

        stopping = job.stop.requested
        evaluate, correct = job.evaluation_due(), job.correction_due()
        reads_now = evaluate or correct or stopping or job.checkpoint_due()
        if unread and reads_now and not job.must_rewind:
            yield from job.read(unread)
            unread = None
        if job.must_rewind:
            yield from job.rewind()
            unread = None
            continue
        if correct:
            yield from job.correct_length()
        if evaluate:
            yield from job.milestone()
            stopping = job.stop.requested
        if stopping or job.checkpoint_due():
            yield job.save()

    job.finish()
    if state.update < job.updates or job.evaluation_due():
        raise job.interrupted()
