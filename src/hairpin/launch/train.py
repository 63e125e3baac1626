"""Trains a run to its end: runs the loop, and leaves an `end` in the record.

    train_new   makes a folder for a run, then trains in it
    resume_run  resumes a run that exists

PyTorch is imported only once the run's folder exists.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from hairpin.config.settings import Config
from hairpin.data.finding import require_there
from hairpin.distributed.processes import joined_processes
from hairpin.errors import (
    HairpinError,
    Interrupted,
    PluginError,
    ProcessLostError,
    UserError,
)
from hairpin.launch.begin import begin
from hairpin.launch.extend import is_finished, is_imported, nothing_to_resume
from hairpin.launch.observers import Observers
from hairpin.launch.request import CheckedRequest
from hairpin.plugins.files import plugin_error_line, require_plugins
from hairpin.reports.trackers.tools import (
    agreed,
    followed,
    remember,
    require_installed,
    require_known,
)
from hairpin.run import Run
from hairpin.runs import events
from hairpin.runs.folder import RunDirectory, create_run, new_run_path
from hairpin.runs.lock import RunLock
from hairpin.runs.record import Record
from hairpin.runs.watcher import Guarded, Watcher, guarded
from hairpin.system.shell import command

if TYPE_CHECKING:
    from hairpin.training.budget import Budget

# Their number is an update's index; that of other events is the number of completed updates.
_COUNTED_FROM_0 = (events.Update, events.Ratios)
# Signals that request the end. Windows has no SIGHUP.
_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def train_new(
    checked: CheckedRequest,
    watcher: Watcher,
    started: float | None = None,
    *,
    pictures: bool = True,
) -> Run:
    """Make the run's folder, then train in it.

    A user's mistake that is found before the first update leaves no run. Of the trackers that the
    config names, those are used that the call itself names or that write only to the folder.

    Args:
        checked: the request.
        watcher: display.
        started: start of the budget on `time.monotonic`; None: now.
        pictures: whether plots are drawn at the end.
    """
    started = time.monotonic() if started is None else started
    watcher, asked, track = guarded(watcher), checked.config, checked.trackers
    require_known(track)
    tools = followed(asked.track, track, watcher.notice)
    require_installed(tools)
    require_plugins(asked.plugins, "hairpin train …")
    require_there(asked.data)
    directory = create_run(checked.request.folder or new_run_path(checked.name), asked)
    for line in checked.notes:
        watcher.notice(line)
    with RunLock(directory.path) as lock:
        _notify(lock, watcher)
        begin(directory, asked, checked.budget_seconds)
        remember(directory.path, asked.track, track)
        return _run_to_end(
            directory,
            checked.budget_seconds,
            started,
            watcher,
            tools,
            new=lock,
            pictures=pictures,
        )


def resume_run(
    run: Run,
    budget_seconds: float | None,
    watcher: Watcher,
    *,
    config: Config | None = None,
    track: Iterable[str] = (),
    pictures: bool = True,
    restart: bool = False,
) -> Run:
    """Train a run from its present state to its end.

    Args:
        run: finished or not; it may have been killed before its record was begun.
        budget_seconds: its wall time, if not in the record.
        watcher: display.
        config: its new config, written once the run is known to continue with it; None: unchanged.
        track: trackers that may be used, besides those that write only to the folder.
        pictures: whether plots are drawn at the end.
        restart: whether it begins at update 0, even if it is saved or finished.
    """
    watcher, config = guarded(watcher), config or run.config
    require_known(track)
    if is_finished(run, config) and (not restart or is_imported(run)):
        return _leave_finished(run, config, watcher)
    named = {*track, *agreed(run.path, config.track)}
    tools = followed(config.track, named, watcher.notice)
    require_installed(tools)
    require_plugins(config.plugins, command("resume", run.path))
    with RunLock(run.path) as lock:
        _notify(lock, watcher)
        remember(run.path, config.track, named)
        begun = begin(run.directory, config, budget_seconds)
        budget_seconds = begun.get("budget_seconds")
        now = time.monotonic()
        return _run_to_end(
            run.directory,
            budget_seconds,
            now,
            watcher,
            tools,
            config=config,
            pictures=pictures,
            restart=restart,
        )


def _leave_finished(run: Run, config: Config, watcher: Watcher) -> Run:
    """Report that a finished run has nothing left to do; save its changed trackers and plugins."""
    done = f" is finished after {config.train.updates} updates: nothing to do"
    words = f": {nothing_to_resume(run.path)}" if is_imported(run) else done
    watcher.notice(f"{run.path}{words}")
    if config != run.config:
        with RunLock(run.path):
            run.directory.write_config(config)
    if run.directory.unfinished():
        with suppress(HairpinError), RunLock(run.path):  # in use: its process is about to end
            run.directory.remove_unfinished()
    return run


def ignore_sigterm(error: HairpinError) -> None:
    """If a process was lost, let this one report it and end, ignoring torchrun's signals."""
    if isinstance(error, ProcessLostError):
        with suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _notify(lock: RunLock, watcher: Watcher) -> None:
    if lock.note:
        watcher.notice(lock.note)


def _run_to_end(
    directory: RunDirectory,
    budget_seconds: float | None,
    started: float,
    watcher: Guarded,
    tools: Sequence[str],
    *,
    config: Config | None = None,
    new: RunLock | None = None,
    pictures: bool = True,
    restart: bool = False,
) -> Run:
    """Train to the end, showing progress, and leave an `end` in the record whatever the outcome;
    but leave an existing run unchanged if it is refused before it resumes.

    The caller holds the run's lock, which is `new` if this process made the run: then a mistake
    before the first update leaves no run.
    """
    if "torch" not in sys.modules:
        watcher.stage("loading PyTorch", 0, 0)
    from hairpin.training.budget import Budget

    run, budget = Run(directory), Budget(budget_seconds, started) if budget_seconds else None
    observers = Observers(run, watcher, tools, pictures=pictures)
    update, status, reason = run.summary().updates, "failed", None
    begun, refused, given_up = new is not None, False, False
    loop = _train_as_leader(run, config, budget, watcher, restart)
    try:
        for event in _attribute_plugin_errors(loop):
            begun = True
            update = getattr(event, "update", update) + isinstance(event, _COUNTED_FROM_0)
            observers.show(event, update)
        status = "finished"
    except HairpinError as error:
        ignore_sigterm(error)
        status, reason = "interrupted" if error.exit_code > 128 else "failed", str(error)
        refused = isinstance(error, UserError) and not begun
        given_up = isinstance(error, UserError) and new is not None and not update
        raise
    except (KeyboardInterrupt, SystemExit) as stop:  # while preparing, or a second signal
        status, reason = (
            "interrupted",
            (f"stopped; resume with `{command('resume', directory.path)}`"),
        )
        if (number := _signal_of(stop)) is None:
            raise
        raise Interrupted(reason, number) from None
    finally:
        if directory.path.is_dir() and not refused:
            end = events.End(update, status, time.monotonic() - started, reason)
            _write(directory, *observers.given_up(update), end)
            observers.show(end, update, is_shown=not given_up)
        observers.close()
        if new and given_up:
            directory.give_up(new)
    observers.finish()
    _write(directory, *observers.given_up(update))
    return run


def _signal_of(stop: KeyboardInterrupt | SystemExit) -> signal.Signals | None:
    """Return the signal that raised it; None for another cause, such as a plugin's `exit`."""
    if isinstance(stop, KeyboardInterrupt):
        return signal.SIGINT
    return next((number for number in _STOPS if stop.code == 128 + number), None)


def _write(directory: RunDirectory, *last: events.Event) -> None:
    """Add a process's last events to the record."""
    if not last:
        return
    with suppress(HairpinError), Record(directory.metrics) as record:
        for event in last:
            record.write(event)  # a full disk was reported already
        record.sync()


def _train_as_leader(
    run: Run, config: Config | None, budget: "Budget | None", watcher: Watcher, restart: bool
) -> Iterator[events.Event]:
    """Train, after sending the request to the other processes, if any."""
    with joined_processes() as processes:
        processes.announce_run(run.path)
        world = processes.world
        world.gather(0)  # wait until all have seen it: a mistake may remove it
        train = training_function(run)
        yield from train(
            config=config, budget=budget, watcher=watcher, world=world, restart=restart
        )
        world.leave()


def training_function(run: Run) -> Callable[..., Iterator[events.Event]]:
    """Return the training function for a run of its kind."""
    from hairpin.tasks.finetuning import finetuning
    from hairpin.tasks.pretraining import pretraining
    from hairpin.training.train_run import train_run

    make_task = finetuning if run.config.finetune.kind else pretraining
    return partial(train_run, run.directory, make_task)


def _attribute_plugin_errors(loop: Iterable[events.Event]) -> Iterator[events.Event]:
    """Yield the loop's events; turn a plugin's error into a line that names the place."""
    try:
        yield from loop
    except Exception as error:
        if line := plugin_error_line(error):
            raise PluginError(line) from error
        raise
