"""Trains a run from where it is to its end: drains the loop, and leaves an end in the record.

    train_new   a folder for a run, then training in it
    go_on       a run that exists

PyTorch is imported only once the run's folder is there.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hairpin.config.settings import Config
from hairpin.distributed.company import in_company
from hairpin.errors import (
    HairpinError,
    Interrupted,
    PluginError,
    ProcessLostError,
    UserError,
)
from hairpin.pages.write import LivePage
from hairpin.plugin_files import blame, require_plugins
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.directory import RunDirectory, create_run, new_run_path
from hairpin.runs.lock import RunLock
from hairpin.runs.metrics import Record
from hairpin.starting.begin import begin
from hairpin.starting.extend import IMPORTED, is_finished, is_imported
from hairpin.tracking.follow import Trackers
from hairpin.tracking.tools import followed, require_installed
from hairpin.watch import Watcher

if TYPE_CHECKING:
    from hairpin.training.budget import Budget

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
    track: Iterable[str] = (),
    pictures: bool = True,
) -> Run:
    """Make the run's folder, then train in it; without `pictures`, leave nothing to look at.

    Of the trackers that the config names, those follow that are in `track` or keep to the folder.
    """
    tools = followed(asked.track, track, watcher.notice)
    require_installed(tools)
    require_plugins(asked.plugins, "hairpin train …")
    directory = create_run(Path(out) if out else new_run_path(name), asked)
    for line in notices:
        watcher.notice(line)
    with RunLock(directory.path) as lock:
        _say(lock, watcher)
        begin(directory, asked, budget_seconds)
        return _drain(
            directory, budget_seconds, started, watcher, tools, is_new=True, pictures=pictures
        )


def go_on(
    run: Run,
    budget_seconds: float | None,
    watcher: Watcher,
    *,
    track: Iterable[str] = (),
    pictures: bool = True,
) -> Run:
    """Train a run to its end from where it is.

    Args:
        run: finished or not; it may have been killed before its record was begun.
        budget_seconds: its wall time, if the record does not say.
        watcher: is shown what happens.
        track: trackers that may follow it; of the others those that keep to the folder.
        pictures: whether plots are drawn at the end.
    """
    if is_finished(run):
        done = f" is finished after {run.config.train.updates} updates: nothing to do"
        words = f": {IMPORTED.format(run.path)}" if is_imported(run) else done
        watcher.notice(f"{run.path}{words}")
        if run.directory.unfinished():
            with suppress(HairpinError), RunLock(run.path):  # in use: its process is at its last
                run.directory.remove_unfinished()
        return run
    tools = followed(run.config.track, track, watcher.notice)
    require_installed(tools)
    require_plugins(run.config.plugins, f"hairpin resume {run.path}")
    with RunLock(run.path) as lock:
        _say(lock, watcher)
        begun = begin(run.directory, run.config, budget_seconds)
        budget_seconds = begun.get("budget_seconds")
        return _drain(
            run.directory, budget_seconds, time.monotonic(), watcher, tools, pictures=pictures
        )


def finish_speaking(error: HairpinError) -> None:
    """Of a lost process this one says so and ends, whatever torchrun sends it meanwhile."""
    if isinstance(error, ProcessLostError):
        with suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _say(lock: RunLock, watcher: Watcher) -> None:
    if lock.note:
        watcher.notice(lock.note)


def _drain(
    directory: RunDirectory,
    budget_seconds: float | None,
    started: float,
    watcher: Watcher,
    tools: Sequence[str],
    *,
    is_new: bool = False,
    pictures: bool = True,
) -> Run:
    """Train to the end, showing what happens, and leave an `end` in the record whatever that is.

    The caller holds the run's lock.
    """
    from hairpin.training.budget import Budget

    budget = Budget(budget_seconds, started) if budget_seconds else None
    run = Run(directory)
    trackers = Trackers(run, tools, watcher.notice)
    show = _shown(run, watcher, trackers, pictures=pictures)
    update, status, reason = run.summary().updates, "failed", None
    try:
        for event in _blaming(_leading(run, budget, watcher)):
            update = getattr(event, "update", update) + isinstance(event, _COUNTED_FROM_0)
            show(event)
        status = "finished"
    except HairpinError as error:
        finish_speaking(error)
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


def _leading(run: Run, budget: "Budget | None", watcher: Watcher) -> Iterator[events.Event]:
    """Train, after telling the other processes what, if there are any."""
    with in_company() as company:
        company.lead(run.path)
        yield from training(run)(budget=budget, watcher=watcher, world=company.world)
        company.world.leave()


def training(run: Run) -> Callable[..., Iterator[events.Event]]:
    """What trains a run of its kind."""
    from hairpin.finetuning.task import finetuning
    from hairpin.training.pretrain import pretraining
    from hairpin.training.run import train_run

    make_task = finetuning if run.config.finetune.kind else pretraining
    return partial(train_run, run.directory, make_task)


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
