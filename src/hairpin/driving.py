"""Trains a run from where it is to its end: drains the loop, and leaves an end in the record.

    train_new   a folder for a run, then training in it
    go_on       a run that exists

PyTorch is imported only once the run's folder is there.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from hairpin.config.settings import Config
from hairpin.errors import HairpinError, Interrupted, PluginError, UserError
from hairpin.pages.write import LivePage
from hairpin.plugin_files import blame, require_plugins
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.directory import RunDirectory, create_run, new_run_path
from hairpin.runs.lock import RunLock
from hairpin.runs.metrics import Record
from hairpin.starting.begin import begin
from hairpin.starting.extend import is_finished
from hairpin.tracking.follow import Trackers
from hairpin.tracking.tools import require_installed
from hairpin.watch import Watcher

# Their number is an update's index; that of other events is how many updates are completed.
_COUNTED_FROM_0 = (events.Update, events.Ratios)


def train_new(
    asked: Config,
    out: str | Path | None,
    name: str,
    budget_seconds: float | None,
    started: float,
    watcher: Watcher,
    notices: Iterable[str] = (),
    *,
    pictures: bool = True,
) -> Run:
    """Make the run's folder, then train in it; without `pictures`, leave nothing to look at."""
    require_installed(asked.track.tools)
    require_plugins(asked.plugins, "hairpin train …")
    directory = create_run(Path(out) if out else new_run_path(name), asked)
    for line in notices:
        watcher.notice(line)
    with RunLock(directory.path):
        begin(directory, asked, budget_seconds)
        return _drain(directory, budget_seconds, started, watcher, is_new=True, pictures=pictures)


def go_on(
    run: Run, budget_seconds: float | None, watcher: Watcher, *, pictures: bool = True
) -> Run:
    """Train a run to its end from where it is.

    Args:
        run: finished or not; it may have been killed before its record was begun.
        budget_seconds: its wall time, if the record does not say.
        watcher: is shown what happens.
        pictures: whether plots are drawn at the end.
    """
    if is_finished(run):
        watcher.notice(
            f"{run.path} is finished after {run.config.train.updates} updates: nothing to do"
        )
        with suppress(HairpinError), RunLock(run.path):  # in use: its process is at its last
            run.directory.remove_unfinished()
        return run
    require_installed(run.config.track.tools)
    require_plugins(run.config.plugins, f"hairpin resume {run.path}")
    with RunLock(run.path):
        begun = begin(run.directory, run.config, budget_seconds)
        budget_seconds = begun.get("budget_seconds")
        return _drain(run.directory, budget_seconds, time.monotonic(), watcher, pictures=pictures)


def _drain(
    directory: RunDirectory,
    budget_seconds: float | None,
    started: float,
    watcher: Watcher,
    *,
    is_new: bool = False,
    pictures: bool = True,
) -> Run:
    """Train to the end, showing what happens, and leave an `end` in the record whatever that is.

    The caller holds the run's lock.
    """
    from hairpin.finetuning.task import finetuning
    from hairpin.training.budget import Budget
    from hairpin.training.pretrain import pretraining
    from hairpin.training.run import train_run

    budget = Budget(budget_seconds, started) if budget_seconds else None
    run = Run(directory)
    make_task = finetuning if run.config.finetune.kind else pretraining
    trackers = Trackers(run, watcher.notice)
    show = _shown(run, watcher, trackers, pictures=pictures)
    update, status, reason = run.summary().updates, "failed", None
    try:
        for event in _blaming(train_run(directory, make_task, budget=budget, watcher=watcher)):
            update = getattr(event, "update", update) + isinstance(event, _COUNTED_FROM_0)
            show(event)
        status = "finished"
    except HairpinError as error:
        status, reason = "interrupted" if error.exit_code > 128 else "failed", str(error)
        if isinstance(error, UserError) and is_new and not directory.tokenizer.exists():
            shutil.rmtree(directory.path)  # nothing was begun: a mistake leaves no folder
        raise
    except (KeyboardInterrupt, SystemExit) as stop:  # while preparing, or a second signal
        status, reason = "interrupted", f"stopped; go on with `hairpin resume {directory.path}`"
        if isinstance(stop, SystemExit) and stop.code != 128 + signal.SIGTERM:
            raise  # whoever read the output has gone
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        raise Interrupted(reason, number) from None
    finally:
        if directory.path.is_dir():
            end = events.End(update, status, time.monotonic() - started, reason)
            with suppress(HairpinError), Record(directory.metrics) as record:
                record.write(end)  # where the disk is full, it was said already
                record.sync()
            show(end)
            trackers.close()
        watcher.close()
    if pictures:
        run.write_plots()
    watcher.finish(run.path, run.lines())
    return run


def _blaming(loop: Iterable[events.Event]) -> Iterator[events.Event]:
    """The loop's events; an error that came out of a plugin is a line that names the place."""
    try:
        yield from loop
    except Exception as error:
        if line := blame(error):
            raise PluginError(line) from error
        raise


def _shown(
    run: Run, watcher: Watcher, trackers: Trackers, *, pictures: bool
) -> Callable[[events.Event], None]:
    """What shows the run's events to the watcher, and keeps its page and trackers up with them."""
    page = LivePage(run, watcher.notice) if pictures else None
    if pictures:
        watcher.begin(run.path)

    def show(event: events.Event) -> None:
        watcher.show(event)
        trackers.follow(event)
        if page:
            page.follow(event)

    return show
